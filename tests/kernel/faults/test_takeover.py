"""From kube-proxy to kproxy, under traffic."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.kernel.faults import foreign
from tests.support import kube_proxy
from tests.support.net.plan import CLIENT, CLUSTER_CIDR, NODE, POD1, POD2, POD3, in_family
from tests.support.node.cluster import both
from tests.support.node.node import IPTABLES, LEFT, REFUSED, Node
from tests.support.node.tools import REFUSE
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

LINK = "kube-ipvs0"

EDGE = both("edge", "10.96.0.7", POD1, POD2, ports=(port(80, node_port=30080),))
IDLE = both("idle", "10.96.0.9")
SERVED = {
    "10.96.0.7:80": frozenset({POD1, POD2}),
    f"{NODE}:30080": frozenset({POD1, POD2}),
}
STALE = {"10.96.0.8:5432": frozenset({POD3})}
AFTERWARDS = {
    **SERVED,
    "10.96.0.8:5432": frozenset({LEFT}),
    "10.96.0.9:80": frozenset({REFUSED}),
}
SOURCES = (CLIENT, POD3)

# What the saved rules call what is called otherwise in the test network.
_NAMES = {
    Family.IPV4: {
        "172.30.0.": "10.96.0.",
        "10.0.0.0/16": CLUSTER_CIDR,
        "10.0.0.3": POD1,
        "10.0.0.4": POD2,
        "10.0.0.5": POD3,
    },
    Family.IPV6: {
        "fd00:30::": "fd00:96::",
        "fd00:10::/64": in_family(CLUSTER_CIDR, Family.IPV6),
        "fd00:10::3": in_family(POD1, Family.IPV6),
        "fd00:10::4": in_family(POD2, Family.IPV6),
        "fd00:10::5": in_family(POD3, Family.IPV6),
    },
}


def leave_kube_proxys(node: Node) -> None:
    """Write what kube-proxy leaves when it stops."""
    for family in Family:
        text = kube_proxy.iptables_mode(family)
        for saved, here in _NAMES[family].items():
            text = text.replace(saved, here)
        node.iptables(family, "-restore --noflush", text=text)


@pytest.fixture
def others(node):
    """Everybody else's rules, as they were before those of kube-proxy."""
    node.manifests.put("shop", EDGE + IDLE)
    foreign.settle(node)
    others = foreign.seen(node)
    leave_kube_proxys(node)
    assert node.answers({**SERVED, **STALE}, sources=SOURCES) == []
    return others


def kube_proxys(node: Node, others: list[str]) -> set[str]:
    """Return its rules, without counters: there is traffic."""
    return {line.partition("] ")[2] or line for line in foreign.seen(node)} - set(others)


def test_traffic_flows_through_the_swap_and_only_kube_proxys_leftovers_go(node, others):
    proxy = node.start("--take-over")
    while "ready: " not in proxy.said():
        assert node.answers(SERVED, sources=SOURCES) == []
        assert proxy.process.poll() is None, proxy.said()

    assert node.answers(AFTERWARDS, sources=SOURCES) == []
    assert foreign.seen(node) == others


def test_without_the_option_its_stale_rules_stay_and_lose_to_ours(node, others):
    before = kube_proxys(node, others)
    node.manifests.put("shop", both("edge", "10.96.0.7"))
    node.ready("--no-take-over")
    assert kube_proxys(node, others) == before
    assert node.answers({"10.96.0.7:80": frozenset({REFUSED}), **STALE}, sources=SOURCES) == []


def test_nothing_goes_before_our_own_rules_are_in_force(node, others):
    before = kube_proxys(node, others)
    node.tools.at(1, "kill -9 $PPID; exit 1")
    node.start("--take-over").ended()
    assert kube_proxys(node, others) == before
    assert node.answers({**SERVED, **STALE}, sources=SOURCES) == []


LINK_VIPS = {Family.IPV4: "10.96.0.7", Family.IPV6: in_family("10.96.0.7", Family.IPV6)}


def on_the_link(node: Node) -> set[str]:
    """Return the addresses on the link of kube-proxy's ipvs mode, which may be gone."""
    lines = [line.split() for line in node.run("ip -o addr show").splitlines()]
    return {words[3].partition("/")[0] for words in lines if words[1] == LINK}


@pytest.fixture
def link(node):
    """What kube-proxy's ipvs mode leaves: a link, whatever its type, with all clusterIPs."""
    node.manifests.put("shop", EDGE)
    node.run(f"ip link add {LINK} type veth peer name other-end")
    for vip in LINK_VIPS.values():
        node.run(f"ip addr add {vip} dev {LINK}")


@pytest.mark.parametrize("variant", IPTABLES)
def test_a_family_that_the_kernel_refuses_keeps_its_addresses_until_it_has_rules(node, link):
    node.tools.always("ip6tables", REFUSE)
    proxy = node.start("--take-over")
    proxy.wait_for("removed 1 objects that kube-proxy left")
    assert on_the_link(node) == {LINK_VIPS[Family.IPV6]}
    assert node.answers(SERVED, families=(Family.IPV4,)) == []
    node.tools.leave_alone("ip6tables")
    until(lambda: on_the_link(node) == set(), within_s=LONGEST_S, what="both are in force")
    until(lambda: LINK not in node.run("ip link"), within_s=LONGEST_S, what="no link")
    assert node.answers(SERVED, sources=SOURCES) == []
