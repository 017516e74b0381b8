"""What in or around a ServiceCIDR is somebody's, and whose."""

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.node_rules import Surroundings, node_rules
from kproxy.core.settings import Settings
from kproxy.core.store import Connected, Upserted
from tests.support.core.things import HERE, THERE, a_cidr, a_node, a_service, listed, networks

V4, V6 = Family.IPV4, Family.IPV6
DIRECT = "this node is directly connected to it"


def told(*cidrs, connected=(), nodes=(), pods=(), family=V4):
    settings = Settings(HERE, cluster_cidrs=networks(*pods))
    around = Surroundings(
        nodes=nodes, service_cidrs=[a_cidr(*cidrs)], connected=networks(*connected)
    )
    found = node_rules(settings, around, family).shared_ranges
    assert all(each.network.version == (4 if family is V4 else 6) for each in found)
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("cidr", "network"),
    [
        ("192.168.0.0/16", "192.168.10.0/24"),
        ("192.168.10.0/26", "192.168.10.0/24"),
        ("192.168.10.0/24", "192.168.10.0/24"),
    ],
)
def test_a_network_inside_or_around_a_service_cidr_is_told(cidr, network):
    assert told(cidr, connected=[network]) == [f"{network} ({DIRECT})"]
    assert told(cidr, connected=["192.0.2.0/24"]) == []
    assert told(connected=[network]) == []


def test_everybody_is_asked():
    nodes = [
        a_node("192.168.10.12", "2001:db8::12", pod_cidrs=["192.168.64.0/24", "fd00:1::/64"]),
        a_node("192.168.10.11", pod_cidrs=["192.168.65.0/24"], name=THERE),
    ]
    everybody = {
        "nodes": nodes,
        "connected": ["192.168.80.0/24", "fd00:96::/120"],
        "pods": ["192.168.128.0/17", "fd00::/16"],
    }
    assert told("192.168.0.0/16", **everybody) == [
        "192.168.10.11 (Node n2)",
        "192.168.10.12 (Node n1)",
        "192.168.64.0/24 (podCIDR of Node n1)",
        "192.168.65.0/24 (podCIDR of Node n2)",
        f"192.168.80.0/24 ({DIRECT})",
        "192.168.128.0/17 (clusterCIDR)",
    ]
    assert told("fd00:96::/112", **everybody, family=V6) == ["fd00::/16 (clusterCIDR)"]


def test_what_a_wider_network_covers_is_not_told_again():
    nodes = [a_node("192.168.10.12", pod_cidrs=["192.168.64.0/24"])]
    wide = {"connected": ["192.168.10.0/24"], "pods": ["192.168.64.0/18"], "nodes": nodes}
    assert told("192.168.0.0/16", **wide) == [
        f"192.168.10.0/24 ({DIRECT})",
        "192.168.64.0/18 (clusterCIDR)",
    ]


def test_of_two_names_for_one_network_the_first_is_told_whoever_came_first():
    both = [a_node(pod_cidrs=["10.1.0.0/24"], name=name) for name in (THERE, HERE)]
    assert (
        told("10.0.0.0/8", nodes=both)
        == told("10.0.0.0/8", nodes=both[::-1])
        == ["10.1.0.0/24 (podCIDR of Node n1)"]
    )


def test_networks_are_followed_as_they_come_and_go():
    compiler = Compiler(Settings(HERE))
    near = Connected(frozenset(networks("10.96.128.0/24", "fd00:1::/64")))
    assert compiler.apply([near]) == {}, "nothing before everything was listed"
    compiler.apply(listed(a_service(), a_cidr("10.96.0.0/16")))
    assert list(map(str, compiler.tables[V4].rules.shared_ranges)) == [f"10.96.128.0/24 ({DIRECT})"]
    assert compiler.apply([near]) == {}

    changed = compiler.apply([Connected(frozenset())])
    assert set(changed) == {V4}
    assert changed[V4].rules.shared_ranges == ()
    assert not changed[V4].service_ports
    changed = compiler.apply([Upserted(a_node("10.96.7.7", name=THERE))])
    assert list(map(str, changed[V4].rules.shared_ranges)) == ["10.96.7.7 (Node n2)"]
