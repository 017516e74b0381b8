"""Real UDP flows in a namespace, translated by real rules: listed exactly, removed exactly."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backends.kernel import conntrack
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, UdpFlows
from kproxy.core.objects import Protocol
from kproxy.core.table import NodeRules
from kproxy.ports.data_path import BackendError
from tests.kernel.flows.node import Node
from tests.support.flows import change, rules, service_port

pytestmark = pytest.mark.kernel

NODE_PORT = 30053


@pytest.fixture(params=Family, ids=lambda family: family.value)
def node(request) -> Iterator[Node]:
    """A fresh node of each family."""
    made = Node(request.param)
    yield made
    made.close()


def asked(node: Node, how: str) -> Destinations:
    """Return the same destination, asked for in the different ways that a reading can take."""
    vip = node.vips[0]
    return {
        "one": Destinations(vips=frozenset([vip])),
        "many": Destinations(vips=frozenset([vip, *((vip[0], port) for port in range(60, 70))])),
        "port": Destinations(ports=frozenset([vip[1]])),
        "network": Destinations(networks=(node.services,)),
    }[how]


@pytest.mark.parametrize("how", ["one", "many", "port", "network"])
def test_a_flow_is_listed_as_it_was_translated(node, how):
    vip, pod = node.vips[0], node.pods[0]
    node.translate(vip, pod)
    node.iptables(
        "nat", "-A", "POSTROUTING", "-d", pod[0], "-j", "SNAT", "--to-source", node.address
    )
    node.open(vip, 40001)
    node.open((node.address, 9), 40002)
    (listed,) = node.listed(asked(node, how))

    assert listed[:8] == (node.client, 40001, *vip, *pod, node.address, 40001)
    assert listed.zone == 0


def test_a_flow_older_than_the_rule_is_listed_as_untranslated(node):
    vip = node.vips[0]
    node.open(vip, 40001)
    node.translate(vip, node.pods[0])
    (listed,) = node.listed(asked(node, "one"))

    assert listed[:8] == (node.client, 40001, *vip, *vip, node.client, 40001)


def test_every_wanted_destination_is_asked_for(node):
    for vip in node.vips:
        node.open(vip, 40001)
        node.open((vip[0], 54), 40002)
    for number in range(1, len(node.vips) + 1):
        vips = frozenset(node.vips[:number])
        assert {each[2:4] for each in node.listed(Destinations(vips=vips))} == vips

    mixed = Destinations(vips=frozenset(node.vips[:1]), ports=frozenset([54]))
    assert len(node.listed(mixed)) == 1 + len(node.vips)


def test_exactly_the_named_entry_is_removed(node):
    vip, other = node.vips[:2]
    for port, to in enumerate([vip, vip, other, (vip[0], 54)], 40001):
        node.translate(to, node.pods[0])
        node.open(to, port)
    stream = node.socket((node.client, 40001), Protocol.TCP)
    assert stream.connect_ex(vip) != 0
    before = node.tracked()
    everything = Destinations(ports=frozenset([53, 54]))
    all_flows = node.listed(everything)
    doomed = [each for each in all_flows if each.source_port == 40001]

    assert node.delete(doomed) == 1
    assert node.listed(everything) == [each for each in all_flows if each not in doomed]
    assert node.tracked() == before - 1
    assert node.delete(doomed) == 0, "gone already is no error"


def test_a_later_entry_of_the_same_tuple_stays(node):
    node.open(node.vips[0], 40001)
    (listed,) = node.listed(asked(node, "one"))
    (number,) = struct.unpack(">I", listed.handle[-4:])
    older = listed._replace(handle=listed.handle[:-4] + struct.pack(">I", number ^ 1))

    assert node.delete([older]) == 0
    assert node.listed(asked(node, "one")) == [listed]


@pytest.mark.parametrize(
    ("side", "source_port"), [("--zone", 40001), ("--zone-orig", 40002), ("--zone-reply", 40002)]
)
def test_an_entry_of_another_zone_is_told_apart(node, side, source_port):
    node.open(node.vips[0], 40001)
    outside = node.listed(asked(node, "one"))
    node.iptables("raw", "-A", "OUTPUT", "-p", "udp", "-j", "CT", side, 7)
    node.open(node.vips[0], source_port)
    (inside,) = [each for each in node.listed(asked(node, "one")) if each not in outside]
    assert (inside.source_port, inside.zone) == (source_port, 7)
    assert [each.zone for each in outside] == [0]

    assert node.delete([inside]) == 1
    assert node.listed(asked(node, "one")) == outside


def test_more_entries_than_one_batch_are_removed_while_they_are_listed(node):
    client = node.socket((node.client, 40001))
    for port in range(20000, 20300):
        client.sendto(b"?", (node.vips[0][0], port))
    wanted = Destinations(networks=(node.services,))
    with node.namespace.entered():
        removed = conntrack.delete(node.family, conntrack.list_udp(node.family, wanted))

    assert removed == 300
    assert node.listed(wanted) == []


def test_without_the_right_to_do_so_it_is_an_error_that_stays(node):
    node.open(node.vips[0], 40001)
    (listed,) = node.listed(asked(node, "one"))
    with node.namespace.entered():
        os.seteuid(65534)
        try:
            with pytest.raises(BackendError) as listing:
                list(conntrack.list_udp(node.family, asked(node, "one")))
            with pytest.raises(BackendError) as removing:
                conntrack.delete(node.family, [listed, listed])
        finally:
            os.seteuid(0)

    assert not listing.value.transient
    assert not removing.value.transient
    assert node.listed(asked(node, "one")) == [listed]


def test_a_client_that_never_pauses_reaches_the_new_endpoint(node):
    """The whole chain: an endpoint leaves, its flow is found and forgotten, the rest goes on."""
    vip, (first, second, third) = node.vips[0], node.pods
    at_node = (node.address, NODE_PORT)
    pods = {pod: node.socket(pod) for pod in node.pods}
    flows = UdpFlows()
    flows.apply(change(service_port([vip, NODE_PORT], [first, second]), rules=node_rules(node)))
    flows.settled()
    node.translate(vip, first)
    node.translate(at_node, first)
    node.translate((node.client, NODE_PORT), third)  # somebody else's rule with our port
    clients = {
        node.open(to, 40001 + n): to
        for n, to in enumerate([vip, at_node, (node.client, NODE_PORT)])
    }
    asked = [node.heard(each) for each in (pods[first], pods[first], pods[third])]
    assert asked == [b"?"] * 3

    for to in (vip, at_node):
        node.translate(to, first, "-D")
        node.translate(to, second)
    flows.apply(change(service_port([vip, NODE_PORT], [second])))
    stale = list(flows.stale(node.listed(flows.suspects), [node.address, node.client]))
    assert {each[2:4] for each in stale} == {vip, at_node}
    assert node.delete(stale) == 2

    for client, to in clients.items():
        client.sendto(b"!", to)
    asked = [node.heard(each) for each in (pods[second], pods[second], pods[third])]
    assert asked == [b"!"] * 3
    with pytest.raises(BlockingIOError):
        pods[first].recv(9)


def node_rules(node: Node) -> NodeRules:
    """Return rules by which NodePorts hold everywhere."""
    everywhere = "0.0.0.0/0" if node.family is Family.IPV4 else "::/0"
    return replace(rules([everywhere]), service_cidrs=(node.services,))
