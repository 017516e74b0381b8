"""A node whose settings the proxy cannot write, as in a container without privileges."""

from __future__ import annotations

import pytest

from tests.faults.cluster import both
from tests.faults.waiting import until
from tests.net.plan import NODE, POD1, POD2
from tests.packets.objects import port

pytestmark = pytest.mark.kernel

PORTS = (port(80, node_port=30020),)
OLD = both("web", "10.96.0.20", POD1, ports=PORTS)
NEW = both("web", "10.96.0.20", POD2, ports=PORTS)
BEFORE = {"10.96.0.20:80": frozenset({POD1}), f"{NODE}:30020": frozenset({POD1})}
AFTER = {"10.96.0.20:80": frozenset({POD2}), f"{NODE}:30020": frozenset({POD2})}

READ_ONLY = (
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"',
    "sh",
)
LOCALNET = "net.ipv4.conf.all.route_localnet"


def test_the_rules_do_not_wait_for_a_setting(node):
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=READ_ONLY)
    proxy.wait_for("ready: ")
    assert node.answers(BEFORE) == []
    assert f"setting {LOCALNET} to 1: Read-only file system" in proxy.said()

    node.manifests.put("shop", NEW)
    until(lambda: node.answers(AFTER) == [], within_s=10, what="the change in force")
    assert "refused" not in proxy.said()


def test_a_setting_that_somebody_turns_off_stops_nothing(node):
    node.run(f"sysctl -q -w {LOCALNET}=1")
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=READ_ONLY)
    proxy.wait_for("ready: ")
    assert LOCALNET not in proxy.said()

    node.run(f"sysctl -q -w {LOCALNET}=0")
    proxy.wait_for(f"setting {LOCALNET} to 1: Read-only file system")
    node.manifests.put("shop", NEW)
    until(lambda: node.answers(AFTER) == [], within_s=10, what="the change in force")
    node.run(f"sysctl -q -w {LOCALNET}=1")
    node.manifests.put("shop", OLD)
    until(lambda: node.answers(BEFORE) == [], within_s=10, what="back")
    assert proxy.stop() == 0
