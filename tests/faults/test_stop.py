"""SIGTERM while rules are being written."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.faults.cluster import both
from tests.faults.node import REFUSED
from tests.net.plan import NODE, POD1, POD2
from tests.packets.objects import port

pytestmark = pytest.mark.kernel

PORTS = (port(80, node_port=30020),)
OLD = (
    *both("web", "10.96.0.20", POD1, ports=PORTS),
    *both("busy", "10.96.0.30", POD1),
)
NEW = (
    *both("web", "10.96.0.20", POD2, ports=PORTS),
    *both("busy", "10.96.0.30"),
)
BEFORE = {
    "10.96.0.20:80": frozenset({POD1}),
    f"{NODE}:30020": frozenset({POD1}),
    "10.96.0.30:80": frozenset({POD1}),
}
AFTER = {
    "10.96.0.20:80": frozenset({POD2}),
    f"{NODE}:30020": frozenset({POD2}),
    "10.96.0.30:80": frozenset({REFUSED}),
}
ASK_TO_STOP = "kill -TERM $PPID; sleep 0.3"


@pytest.mark.parametrize("restore", [1, 2, 3])
def test_the_write_is_finished_and_the_rules_stay(node, restore):
    node.manifests.put("shop", OLD)
    proxy = node.ready()
    assert node.answers(BEFORE) == []
    node.tools.forget()
    node.tools.at(restore, ASK_TO_STOP)
    node.manifests.put("shop", NEW)

    assert proxy.ended() == 0, proxy.said()
    written = [f for f in Family if node.answers(AFTER, families=(f,)) == []]
    unchanged = [f for f in Family if node.answers(BEFORE, families=(f,)) == []]
    assert written
    assert sorted([*written, *unchanged], key=list(Family).index) == list(Family)
    node.once()
    assert node.answers(AFTER) == []


def test_before_the_first_rule_it_ends_as_well(node):
    node.manifests.put("shop", OLD)
    node.tools.at(1, ASK_TO_STOP)
    proxy = node.start()
    assert proxy.ended() == 0, proxy.said()
    assert node.answers(BEFORE, families=(Family.IPV4,)) == []
