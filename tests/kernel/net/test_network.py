"""The harness itself: what it reports must be what the kernel did."""

from __future__ import annotations

import subprocess

import pytest

from kproxy.core.addresses import Family, endpoint_text
from kproxy.core.objects import Protocol
from tests.support.net import plan
from tests.support.net.network import Network, Pods
from tests.support.net.observed import Answered, Left, Observed, Probe, Refused, Silent
from tests.support.net.plan import in_family
from tests.support.open_files import open_files, opened_since

pytestmark = pytest.mark.kernel

PORT = 8080
NOBODY = "10.96.0.9"
EVERYONE = sorted(set(plan.PLACES) - {plan.LOOPBACK})
SENDERS = (plan.CLIENT, plan.POD1, plan.POD3, plan.FAR1, plan.NODE)


@pytest.fixture(scope="module")
def network():
    with Network() as network:
        network.serve([PORT])
        yield network


@pytest.fixture(scope="module")
def bridged():
    with Network(Pods.BRIDGED) as network:
        network.serve([PORT])
        yield network


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture(params=Protocol, ids=lambda protocol: protocol.value)
def protocol(request):
    return request.param


@pytest.fixture
def rules(network):
    """Load rules into the node by hand; they are gone after the test."""

    def load(text: str, place: str = "node") -> None:
        places.add(place)
        with network.namespaces[place].entered():
            subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

    places: set[str] = set()
    yield load
    for place in places:
        with network.namespaces[place].entered():
            subprocess.run(["nft", "flush", "ruleset"], check=True)


def probe(source: str, destination: str, protocol: Protocol, family: Family) -> Probe:
    return Probe(in_family(source, family), in_family(destination, family), PORT, protocol)


def answer(by: str, source: str, observed: Observed, family: Family) -> bool:
    """Say whether the machine `by` answered and saw `source`, whatever port that used."""
    return (
        isinstance(observed, Answered)
        and observed.by == endpoint_text(in_family(by, family), PORT)
        and observed.source.rpartition(":")[0].strip("[]") == in_family(source, family)
    )


@pytest.mark.parametrize("joined", ["network", "bridged"])
def test_every_machine_reaches_every_other_and_is_seen_with_its_own_address(
    request, joined, protocol, family
):
    network = request.getfixturevalue(joined)
    pairs = [
        (source, destination)
        for source in EVERYONE
        for destination in EVERYONE
        if plan.PLACES[source] != plan.PLACES[destination]
    ]
    observed = network.send([probe(s, d, protocol, family) for s, d in pairs])

    wrong = [
        (pair, seen)
        for pair, seen in zip(pairs, observed, strict=True)
        if not answer(pair[1], pair[0], seen, family)
    ]
    assert wrong == []


def test_a_packet_for_nobody_is_seen_to_leave(network, protocol, family):
    observed = network.send([probe(s, NOBODY, protocol, family) for s in SENDERS])

    assert observed == [Left(in_family(source, family)) for source in SENDERS]


def test_a_packet_to_an_address_of_the_node_is_answered_by_the_node(network, protocol, family):
    to = [plan.NODE, plan.NODE_SECOND, plan.NODE_VIP]
    observed = network.send([probe(plan.CLIENT, address, protocol, family) for address in to])
    itself = network.send([probe(plan.LOOPBACK, plan.LOOPBACK, protocol, family)])

    assert [seen.place for seen in observed + itself] == ["node"] * 4


REJECT = """
table inet test {
    chain every {
        ip daddr 10.96.0.9 meta l4proto tcp reject with tcp reset
        ip6 daddr fd00:96::9 meta l4proto tcp reject with tcp reset
        ip daddr 10.96.0.9 reject with icmp port-unreachable
        ip6 daddr fd00:96::9 reject with icmpv6 port-unreachable
    }
    chain forward { type filter hook forward priority 0; jump every; }
    chain output { type filter hook output priority 0; jump every; }
}
"""


def test_a_rejected_packet_is_told_from_a_dropped_one(network, rules, protocol, family):
    rules(REJECT)
    observed = network.send([probe(s, NOBODY, protocol, family) for s in SENDERS])

    assert observed == [Refused()] * len(SENDERS)


def test_many_rejects_at_once_are_all_told(network, rules, protocol, family):
    """The kernel limits its ICMP answers unless it is told not to."""
    rules(REJECT)
    observed = network.send([probe(plan.CLIENT, NOBODY, protocol, family)] * 100)

    assert observed == [Refused()] * 100


DROP = """
table inet test {
    chain every { ip daddr 10.96.0.9 drop; ip6 daddr fd00:96::9 drop; }
    chain forward { type filter hook forward priority 0; jump every; }
    chain output { type filter hook output priority 0; jump every; }
}
"""


def test_a_packet_that_the_node_drops_was_seen_at_the_node(network, rules, protocol, family):
    rules(DROP)
    observed = network.send([probe(s, NOBODY, protocol, family) for s in SENDERS])

    assert observed == [Silent(arrived=True)] * len(SENDERS)


def test_a_packet_that_never_reached_the_node_is_not_taken_for_dropped_there(
    network, rules, protocol, family
):
    rules(DROP, place="outside")
    observed = network.send([probe(plan.CLIENT, NOBODY, protocol, family)])

    assert observed == [Silent(arrived=False)]


TRANSLATE = """
table inet test {
    chain translate {
        ip daddr 10.96.0.9 dnat ip to 10.1.0.12
        ip6 daddr fd00:96::9 dnat ip6 to fd00:1::12
    }
    chain prerouting { type nat hook prerouting priority -100; jump translate; }
    chain output { type nat hook output priority -100; jump translate; }
}
"""
MASQUERADE = """
table inet hide {
    chain post { type nat hook postrouting priority 100; ct status dnat masquerade fully-random; }
}
"""


def test_a_translated_packet_names_the_endpoint_and_the_source(network, rules, protocol, family):
    rules(TRANSLATE)
    observed = network.send([probe(s, NOBODY, protocol, family) for s in SENDERS])

    assert all(
        answer(plan.POD2, source, seen, family)
        for source, seen in zip(SENDERS, observed, strict=True)
    ), observed


def test_a_masqueraded_packet_shows_the_nodes_address(network, rules, protocol, family):
    rules(TRANSLATE + MASQUERADE)
    senders = (*SENDERS, plan.POD2)
    observed = network.send([probe(s, NOBODY, protocol, family) for s in senders])

    assert all(answer(plan.POD2, plan.NODE_POD_SIDE, seen, family) for seen in observed), observed


def test_a_closed_network_leaves_nothing_behind():
    before = open_files()
    with Network() as network:
        network.serve([PORT])
        network.send([probe(plan.CLIENT, NOBODY, Protocol.TCP, Family.IPV4)])

    assert not opened_since(before)


def test_on_a_bridge_pods_answer_each_other_without_the_node(bridged, family):
    """So an answer to a connection that the node translated and did not masquerade is lost."""
    with bridged.node.entered():
        subprocess.run(["nft", "-f", "-"], input=TRANSLATE, text=True, check=True)
        try:
            clients = (plan.POD1, plan.POD3, plan.CLIENT)
            to_pod2 = bridged.send([probe(s, NOBODY, Protocol.TCP, family) for s in clients])
        finally:
            subprocess.run(["nft", "flush", "ruleset"], check=True)

    assert [type(seen) for seen in to_pod2] == [Silent, Silent, Answered]
