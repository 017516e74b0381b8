"""What holds for the whole node, from the configuration and the Node object."""

import ipaddress

import pytest

from kproxy.core.addresses import Family
from kproxy.core.node_rules import Surroundings, node_rules
from kproxy.core.settings import DetectLocalMode, LocalhostNodePorts, NodePortKeyword, Settings
from kproxy.core.table import FromInterface, FromInterfacePrefix, FromNetwork, Undetected
from tests.support.core.things import HERE, a_cidr, a_node, networks

V4, V6 = Family.IPV4, Family.IPV6
ALL, PRIMARY, LOCALHOST = NodePortKeyword.ALL, NodePortKeyword.PRIMARY, NodePortKeyword.LOCALHOST
NODE = a_node("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2")
EVERYWHERE4, EVERYWHERE6 = ["0.0.0.0/0"], ["::/0"]
PRIMARY4, PRIMARY6 = ["192.0.2.1/32"], ["2001:db8::1/128"]
LOOPBACK4, LOOPBACK6 = ["127.0.0.0/8"], ["::1/128"]

NODE_PORTS = [
    # (what is set, the node, IPv4 addresses, IPv6 addresses)
    ("ALL", (ALL,), NODE, EVERYWHERE4, EVERYWHERE6),
    ("primary", (PRIMARY,), NODE, PRIMARY4, PRIMARY6),
    ("primary without a node", (PRIMARY,), None, EVERYWHERE4, EVERYWHERE6),
    ("primary of an IPv4 node", (PRIMARY,), a_node("192.0.2.1"), PRIMARY4, EVERYWHERE6),
    ("primary of an IPv6 node", (PRIMARY,), a_node("2001:db8::1"), EVERYWHERE4, PRIMARY6),
    ("primary of a loopback node", (PRIMARY,), a_node("127.0.0.1"), EVERYWHERE4, EVERYWHERE6),
    ("localhost", (LOCALHOST,), NODE, LOOPBACK4, LOOPBACK6),
    (
        "primary, localhost",
        (PRIMARY, LOCALHOST),
        NODE,
        [*LOOPBACK4, *PRIMARY4],
        [*LOOPBACK6, *PRIMARY6],
    ),
    ("all beats the rest", (PRIMARY, ALL), NODE, EVERYWHERE4, EVERYWHERE6),
    ("one family", networks("198.51.100.0/24"), NODE, ["198.51.100.0/24"], EVERYWHERE6),
    ("the other", networks("2001:db8::/32"), NODE, EVERYWHERE4, ["2001:db8::/32"]),
    ("zero of one family", networks("0.0.0.0/0", "10.0.0.0/8"), NODE, EVERYWHERE4, EVERYWHERE6),
    (
        "twice and unsorted",
        networks("198.51.100.0/24", "10.0.0.0/8", "10.0.0.0/8"),
        NODE,
        ["10.0.0.0/8", "198.51.100.0/24"],
        EVERYWHERE6,
    ),
    (
        "mixed",
        (PRIMARY, *networks("10.0.0.0/8")),
        NODE,
        ["10.0.0.0/8", *PRIMARY4],
        PRIMARY6,
    ),
]


def rules(settings, node=None, cidrs=(), family=V4):
    around = Surroundings(node, service_cidrs=cidrs)
    return node_rules(settings, around, family)


def held(family, node=None, **settings):
    found = rules(Settings(HERE, **settings), node, family=family).node_port_addresses
    return [str(network) for network in found]


@pytest.mark.parametrize(
    ("listed", "node", "v4", "v6"), [row[1:] for row in NODE_PORTS], ids=[r[0] for r in NODE_PORTS]
)
def test_where_node_ports_hold(listed, node, v4, v6):
    assert held(V4, node, node_port_addresses=listed) == v4
    assert held(V6, node, node_port_addresses=listed) == v6


PART = "127.0.2.0/28"
LOCALHOST_RULES = [
    # (what is set; IPv4, IPv6 where everything covers loopback; the same where it must be listed)
    # True is all of loopback.
    ((ALL,), True, True, False, False),
    ((LOCALHOST,), True, True, True, True),
    ((PRIMARY,), False, False, False, False),
    ((PRIMARY, LOCALHOST), True, True, True, True),
    ((ALL, LOCALHOST), True, True, True, True),
    (networks("127.0.0.0/8"), True, True, True, False),
    (networks("127.0.0.1/32"), "127.0.0.1/32", True, "127.0.0.1/32", False),
    (networks(PART), PART, True, PART, False),
    (networks(PART, "127.0.0.0/8"), True, True, True, False),
    (networks("126.0.0.0/7", PART), True, True, True, False),
    ((ALL, *networks(PART)), True, True, PART, False),
    ((PRIMARY, *networks(PART)), PART, False, PART, False),
    (networks("0.0.0.0/0"), True, True, False, False),
    (networks("10.0.0.0/8"), False, True, False, False),
    (networks("::1/128"), True, True, False, True),
    (networks("2001:db8::/32"), True, False, False, False),
]


def on_loopback(when, listed):
    settings = Settings(HERE, node_port_addresses=listed, localhost_ipv4=when, localhost_ipv6=when)

    def on(family):
        found = rules(settings, NODE, family=family).localhost_node_ports
        every = networks(*(LOOPBACK4 if family is V4 else LOOPBACK6))
        return found == every or (str(*found) if found else False)

    return on(V4), on(V6)


@pytest.mark.parametrize(("listed", "covered4", "covered6", "listed4", "listed6"), LOCALHOST_RULES)
def test_when_node_ports_hold_on_loopback(listed, covered4, covered6, listed4, listed6):
    assert on_loopback(LocalhostNodePorts.COVERED, listed) == (covered4, covered6)
    assert on_loopback(LocalhostNodePorts.LISTED, listed) == (listed4, listed6)
    assert on_loopback(LocalhostNodePorts.NEVER, listed) == (False, False)


def test_each_family_has_its_own_rule_for_loopback():
    settings = Settings(HERE, localhost_ipv6=LocalhostNodePorts.NEVER)
    assert rules(settings, NODE).localhost_node_ports
    assert not rules(settings, NODE, family=V6).localhost_node_ports


def test_local_pods_are_known_by_the_first_cluster_cidr_of_the_family():
    cidrs = networks("fd00:1::/48", "10.1.0.0/16", "10.2.0.0/16")
    settings = Settings(HERE, cluster_cidrs=cidrs)

    assert rules(settings).local_pods == FromNetwork(cidrs[1])
    assert rules(settings, family=V6).local_pods == FromNetwork(cidrs[0])


def test_local_pods_are_known_by_the_node_s_pod_cidrs():
    settings = Settings(HERE, detect_local=DetectLocalMode.NODE_CIDR)
    node = a_node(pod_cidrs=("10.1.0.0/24", "fd00:1::/64", "10.9.0.0/24"))

    assert rules(settings, node).local_pods == FromNetwork(ipaddress.ip_network("10.1.0.0/24"))
    there = rules(settings, node, family=V6).local_pods
    assert there == FromNetwork(ipaddress.ip_network("fd00:1::/64"))


@pytest.mark.parametrize(
    ("mode", "node"),
    [
        (DetectLocalMode.CLUSTER_CIDR, a_node(pod_cidrs=("10.1.0.0/24",))),
        (DetectLocalMode.NODE_CIDR, None),
        (DetectLocalMode.NODE_CIDR, a_node(pod_cidrs=("fd00:1::/64",))),
    ],
)
def test_local_pods_that_cannot_be_told_apart_have_a_reason(mode, node):
    found = rules(Settings(HERE, detect_local=mode), node).local_pods

    assert isinstance(found, Undetected)
    assert "IPv4" in found.why


@pytest.mark.parametrize("family", Family)
def test_local_pods_are_known_by_their_interface_in_both_families(family):
    bridge = Settings(HERE, detect_local=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cbr0")
    prefix = Settings(
        HERE, detect_local=DetectLocalMode.INTERFACE_NAME_PREFIX, interface_name_prefix="cali"
    )

    assert rules(bridge, family=family).local_pods == FromInterface("cbr0")
    assert rules(prefix, family=family).local_pods == FromInterfacePrefix("cali")


def test_service_cidrs_are_those_of_the_family_each_once_and_sorted():
    cidrs = [
        a_cidr("10.98.0.0/16", "fd00:96::/112"),
        a_cidr("10.96.0.0/16", "10.98.0.0/16", name="more"),
    ]

    settings = Settings(HERE)
    assert rules(settings, cidrs=cidrs).service_cidrs == networks("10.96.0.0/16", "10.98.0.0/16")
    assert rules(settings, cidrs=cidrs, family=V6).service_cidrs == networks("fd00:96::/112")
    assert rules(settings, cidrs=reversed(cidrs)) == rules(settings, cidrs=cidrs)


@pytest.mark.parametrize("everyone", [True, False])
def test_masquerade_all_is_passed_on(everyone):
    assert rules(Settings(HERE, masquerade_all=everyone)).masquerade_all is everyone
