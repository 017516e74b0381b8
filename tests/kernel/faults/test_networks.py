"""The node's networks lie in a ServiceCIDR, and interfaces come and go."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.commands import output_of
from tests.support.net.network import MAC_OF_PEER
from tests.support.net.plan import NODE, NODE2, POD1, ipv6_of
from tests.support.node.cluster import both
from tests.support.node.node import SILENT
from tests.support.packets.objects import service_cidr
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

NEAR, FAR = "198.51.100.0/24", "198.51.77.0/24"
NEIGHBOUR, WEB = f"{NODE2}:8080", "198.51.100.20:80"
NEWCOMER = "198.51.77.9"
BESIDE = f"{NEWCOMER}:8080"
NEW = frozenset({NEWCOMER, ipv6_of(NEWCOMER)})
FROM_NODE_AND_CLIENT = {"sources": (NODE, "203.0.113.5")}


def ip(namespace, *commands):
    for command in commands:
        with namespace.entered():
            output_of("ip", *command.split(), timeout_s=20)


def interface(node, what):
    """Add or remove the node's address in a second network on the way to the other node."""
    ip(
        node.network.node,
        f"addr {what} 198.51.77.1/24 dev eth1",
        f"-6 addr {what} 2001:db8:51:77::1/64 dev eth1 nodad",
    )


def _is_empty(answers):
    return answers() == []


@pytest.fixture
def proxy(node):
    """A node, beside it a machine whose network the node is not in yet."""
    ip(
        node.network.namespaces["node2"],
        f"addr add {NEWCOMER}/32 dev eth0",
        f"-6 addr add {ipv6_of(NEWCOMER)}/128 dev eth0 nodad",
    )
    for each in (NEWCOMER, ipv6_of(NEWCOMER)):
        ip(node.network.node, f"neigh add {each} lladdr {MAC_OF_PEER} dev eth1")
    node.manifests.put("cidr", (service_cidr("198.51.0.0/16", "2001:db8:51::/48"),))
    node.manifests.put("web", both("web", "198.51.100.20", POD1))
    return node.ready()


def overlaps(proxy):
    return [line.split("overlaps ")[1] for line in proxy.said().splitlines() if "overlaps" in line]


def test_neighbours_are_reached_and_networks_are_followed_as_they_come_and_go(node, proxy):
    apart = {NEIGHBOUR: frozenset({NODE2}), WEB: frozenset({POD1}), BESIDE: frozenset({SILENT})}
    together = {**apart, BESIDE: NEW}
    assert node.answers(apart, **FROM_NODE_AND_CLIENT) == []
    for what, expected in (("add", together), ("del", apart)):
        interface(node, what)
        answers = partial(node.answers, expected, **FROM_NODE_AND_CLIENT)
        until(partial(_is_empty, answers), within_s=LONGEST_S, what=f"{what}: {expected}")

    direct = "(this node is directly connected to it)"
    before = [f"{NEAR} {direct}", f"2001:db8:51::/64 {direct}"]
    told = [line.split(": what")[0] for line in overlaps(proxy)]
    assert sorted(told[:2]) == before
    assert f"{FAR} {direct}, {NEAR} {direct}" in told[2:]
    assert proxy.stop() == 0


def test_a_single_run_knows_the_networks_too(node, proxy):
    assert proxy.stop() == 0
    interface(node, "add")
    node.once()
    assert node.answers({NEIGHBOUR: frozenset({NODE2}), BESIDE: NEW}) == []
