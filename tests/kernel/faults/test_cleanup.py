"""Clean-up on a node that others use as well."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.kernel.faults import foreign
from tests.support.net.plan import CLIENT, NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.node import LEFT
from tests.support.packets.objects import port

pytestmark = pytest.mark.kernel

SHOP = (
    *both("web", "10.96.0.20", POD1, POD2, ports=(port(80, node_port=30020),)),
    *both("idle", "10.96.0.30"),
    *both("sticky", "10.96.0.40", POD1, sessionAffinity="ClientIP"),
)
FRONTENDS = ("10.96.0.20:80", "10.96.0.30:80", "10.96.0.40:80")


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_everything_foreign_stays_byte_for_byte_and_traffic_passes_untouched(node, first):
    node.manifests.put("shop", SHOP)
    if first == "theirs":
        foreign.settle(node)
        before = foreign.seen(node)
        node.once()
    else:
        node.once()
        foreign.settle(node)
        before = foreign.seen(node)
    assert len(before) > 20
    assert node.answers({"10.96.0.20:80": frozenset({POD1, POD2})}) == []

    cleanup = node.kproxy("cleanup")

    assert cleanup.ended() == 0, cleanup.said()
    assert foreign.seen(node) == before
    assert node.ours() == []
    assert set(node.ask(FRONTENDS, sources=(CLIENT, POD3)).values()) == {LEFT}
    with_node_port = node.ask([f"{NODE}:30020"])
    assert {word.partition(":")[0] for word in with_node_port.values()} == {"refused"}


def test_what_is_left_of_our_names_is_nothing(node):
    node.manifests.put("shop", SHOP)
    node.once()
    node.kproxy("cleanup").ended()

    for family in Family:
        assert "kproxy" not in "\n".join(node.saved(family)).lower()
    assert "kproxy" not in node.run("ipset list -n")
    assert node.kproxy("cleanup").ended() == 0
