"""The longest network decides as `resolve()` does, however networks lie in each other."""

import dataclasses
import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Packet, resolve
from kproxy.core.table import SharedRange
from tests.support.ebpf.entries import Entries, of_verdict
from tests.support.ebpf.fake_maps import FakeNode
from tests.support.effort import examples
from tests.support.tables import between, node_rules, service_port, table

NODE_PORT = 30080
BEGINNINGS = {Family.IPV4: ("10.96.7.0", "127.0.0.0"), Family.IPV6: ("fd00:96::", "::")}
SOURCES = {Family.IPV4: "203.0.113.5", Family.IPV6: "2001:db8::5"}


def after(beginning, step):
    return str(ipaddress.ip_address(beginning) + step)


def networks(family, least=0):
    """Networks that begin at an address or soon after, so that many lie in each other."""
    bits = family.bits
    one = st.builds(
        lambda beginning, step, length: ipaddress.ip_network(
            (after(beginning, step), length), strict=False
        ),
        st.sampled_from(BEGINNINGS[family]),
        st.integers(0, 3),
        st.sampled_from([bits, bits - 1, bits - 2, bits - 8, bits - 24, 0]),
    )
    return st.lists(one, min_size=least, max_size=4, unique=True).map(tuple)


def tables(family):
    """A table with a NodePort; localhost NodePorts may lie around loopback, as in no compiled one.

    The NodePort has the same endpoint in all of them.
    """
    entry = service_port(family, 1, [1], node_port=NODE_PORT)
    rules = st.builds(
        dataclasses.replace,
        st.just(node_rules(family)),
        service_cidrs=networks(family),
        shared_ranges=networks(family).map(
            lambda found: tuple(SharedRange(network, "them") for network in found)
        ),
        node_port_addresses=networks(family, 1),
        localhost_node_ports=networks(family),
    )
    return rules.map(lambda made: dataclasses.replace(table(family, entry), rules=made))


def packets(family):
    """Packets to addresses in and around the networks, the unspecified one left out."""
    for beginning in BEGINNINGS[family]:
        for step in (*range(1, 5), 200, 1 << 12):
            address = after(beginning, step)
            for source in (address, SOURCES[family]):
                for port in (80, NODE_PORT):
                    yield Packet(source, address, port, Protocol.TCP, "eth0")


def owned(family):
    return [packet.destination for packet in packets(family)]


@examples(100)
@given(st.data(), st.sampled_from(Family), st.booleans())
def test_every_address_gets_what_the_reference_says(data, family, own):
    made = data.draw(tables(family))
    local = owned(family) if own else ()
    entries = Entries(family)
    entries.update(made.everything())
    for packet in packets(family):
        assert entries.answer(packet, local) == of_verdict(resolve(made, packet, local)), packet


@examples(50)
@given(st.data(), st.sampled_from(Family), st.booleans())
def test_at_every_step_of_a_change_it_gets_the_old_answer_or_the_new_one(data, family, own):
    states = [data.draw(tables(family)) for _ in range(2)]
    local = owned(family) if own else ()
    allowed = {
        packet: [of_verdict(resolve(each, packet, local)) for each in states]
        for packet in packets(family)
    }
    node, seen = FakeNode(family), Entries(family)
    node.reconciler.apply(states[0].everything())

    def look():
        seen.image = node.image()
        for packet, answers in allowed.items():
            assert seen.answer(packet, local) in answers, packet

    node.follow(look)
    node.reconciler.apply(between(*states))
