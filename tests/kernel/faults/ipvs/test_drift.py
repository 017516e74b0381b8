"""Somebody else changes what mode ipvs has in the kernel: the proxy puts that right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backends.ipvs.driver.link import LINK, TABLE
from backends.kernel.virtual_servers import VirtualServers
from tests.kernel.faults import foreign
from tests.support.ipvs.on_node import FOREIGN
from tests.support.net.plan import NODE, POD1, POD2, ipv6_of
from tests.support.node.cluster import POD_PORT, both
from tests.support.node.node import IPVS, REFUSED, Node
from tests.support.packets.objects import port, vip
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

BALANCED = "203.0.113.220"
SHOP = (
    *both(
        "web",
        "10.96.0.20",
        POD1,
        POD2,
        ports=(port(80, node_port=30020),),
        load_balancer=(vip(BALANCED), vip(ipv6_of(BALANCED))),
    ),
    *both("idle", "10.96.0.30"),
)
ANSWERS = {
    "10.96.0.20:80": frozenset({POD1, POD2}),
    f"{NODE}:30020": frozenset({POD1, POD2}),
    f"{BALANCED}:80": frozenset({POD1, POD2}),
    "10.96.0.30:80": frozenset({REFUSED}),
    f"10.96.0.20:{POD_PORT}": frozenset({REFUSED}),  # where the node itself listens
}


def remove_virtual_servers(node: Node) -> None:
    with node.network.node.entered(), VirtualServers("meddling") as kernel:
        ours = [server for server, _ in kernel.servers() if server.port != FOREIGN[1]]
        kernel.delete_servers(ours[1:])


def remove_destinations(node: Node) -> None:
    """Take one away from each virtual server, and let the other have no new connections."""
    with node.network.node.entered(), VirtualServers("meddling") as kernel:
        for server, _ in kernel.servers():
            if server.port != FOREIGN[1]:
                (gone, _), (drained, _) = kernel.destinations(server)
                kernel.delete_destinations([(server, gone)])
                kernel.drain([(server, drained)])


def remove_the_link(node: Node) -> None:
    node.run(f"ip link del {LINK}")


def set_the_link_down(node: Node) -> None:
    node.run(f"ip link set {LINK} down")


def remove_what_steers(node: Node) -> None:
    for family in ("-4", "-6"):
        node.run(f"ip {family} rule del lookup {TABLE}")
        node.run(f"ip {family} route flush table {TABLE}")


def flush_sets(node: Node) -> None:
    for name in node.run("ipset list -n").split():
        if name.startswith("kproxy-"):
            node.run(f"ipset flush {name}")


def flush_rules(node: Node) -> None:
    node.run("nft flush ruleset")


MEDDLING: dict[str, Callable[[Node], None]] = {
    "virtual servers removed": remove_virtual_servers,
    "destinations removed": remove_destinations,
    "the link removed": remove_the_link,
    "the link down": set_the_link_down,
    "steering removed": remove_what_steers,
    "sets flushed": flush_sets,
    "rules flushed": flush_rules,
}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with a proxy that runs, and with what is everybody else's."""
    node = Node(tmp_path_factory.mktemp("drift") / "node", IPVS)
    node.manifests.put("shop", SHOP)
    foreign.settle(node)
    before = foreign.seen(node)
    node.ready()
    assert foreign.seen(node) == before
    yield node
    node.close()


@pytest.mark.parametrize("what", MEDDLING)
def test_drift_is_noticed_and_repaired_and_nothing_else_is_touched(node, what):
    ours = node.ours()
    with node.started[0].held():
        MEDDLING[what](node)
        assert node.ours() != ours
        theirs = foreign.seen(node)
    until(lambda: node.ours() == ours, within_s=LONGEST_S, what="all of ours is as it was")
    assert foreign.seen(node) == theirs
    assert node.answers(ANSWERS) == []
