"""A node whose settings the proxy cannot write, as in a container without privileges."""

from __future__ import annotations

import pytest

from tests.support.net.plan import NODE, POD1, POD2
from tests.support.node.cluster import both
from tests.support.node.node import EBPF, IPTABLES
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

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
# What each data path turns on for connections of the node itself.
LOCALNET, LOOPBACK = "net.ipv4.conf.all.route_localnet", "net.ipv4.conf.lo.accept_local"


@pytest.fixture
def setting(variant):
    return LOOPBACK if variant == EBPF else LOCALNET


def test_the_rules_do_not_wait_for_a_setting(node, setting):
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=READ_ONLY)
    proxy.wait_for("ready: ")
    assert node.answers(BEFORE) == []
    assert f"setting {setting} to 1: Read-only file system" in proxy.said()

    node.manifests.put("shop", NEW)
    until(lambda: node.answers(AFTER) == [], within_s=LONGEST_S, what="the change in force")
    assert "refused" not in proxy.said()


def test_a_setting_that_somebody_turns_off_stops_nothing(node, setting):
    node.run(f"sysctl -q -w {setting}=1")
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=READ_ONLY)
    proxy.wait_for("ready: ")
    assert setting not in proxy.said()

    node.run(f"sysctl -q -w {setting}=0")
    proxy.wait_for(f"setting {setting} to 1: Read-only file system")
    node.manifests.put("shop", NEW)
    until(lambda: node.answers(AFTER) == [], within_s=LONGEST_S, what="the change in force")
    node.run(f"sysctl -q -w {setting}=1")
    node.manifests.put("shop", OLD)
    until(lambda: node.answers(BEFORE) == [], within_s=LONGEST_S, what="back")
    assert proxy.stop() == 0


NOT_LOADED = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs none /proc/sys/net/netfilter && exec "$@"',
    "sh",
)
TIMEOUT = "net.netfilter.nf_conntrack_tcp_timeout_established"


@pytest.mark.parametrize("variant", IPTABLES)
def test_connection_tracking_that_comes_with_the_first_rules_is_set_up_then(node):
    node.configure(conntrack={"tcpEstablishedTimeout": "1h", "maxPerCore": 0})
    node.manifests.put("shop", OLD)
    node.tools.at(1, "umount /proc/sys/net/netfilter")
    proxy = node.start(prefix=NOT_LOADED)
    proxy.wait_for("ready: ")
    assert "trying again when there are rules" in proxy.said()
    proxy.wait_for("set nf_conntrack_tcp_timeout_established to 3600")
    assert node.run(f"sysctl -n {TIMEOUT}") == "3600\n"
    assert "going on without" not in proxy.said()


@pytest.mark.parametrize("variant", IPTABLES)
def test_connection_tracking_that_never_comes_is_told_once(node):
    node.configure(conntrack={"tcpEstablishedTimeout": "1h", "maxPerCore": 0})
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=NOT_LOADED)
    proxy.wait_for("going on without")
    proxy.wait_for("ready: ")
    assert node.answers(BEFORE) == []
    assert proxy.said().count("tcp_timeout_established cannot be set to 3600") == 2
