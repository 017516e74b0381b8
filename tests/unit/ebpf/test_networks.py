"""The longest network decides as `resolve()` does, however networks lie in each other."""

import ipaddress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Packet, resolve
from kproxy.core.table import (
    ForwardingTable,
    NodePort,
    ServicePort,
    ServicePortKey,
    SharedRange,
    TableChanges,
    Target,
    Use,
)
from tests.support.ebpf.entries import Entries, of_verdict
from tests.support.effort import examples
from tests.support.tables import node_rules

PORT = 30080
BEGINNINGS = {Family.IPV4: ("10.96.0.0", "127.0.0.0"), Family.IPV6: ("fd00:96::", "::")}


def around(family, beginning):
    """Networks that begin at an address or soon after, so that many lie in each other."""
    bits = family.bits
    return st.builds(
        lambda step, length: ipaddress.ip_network((after(beginning, step), length), strict=False),
        st.integers(0, 3),
        st.sampled_from([bits, bits - 1, bits - 2, bits - 8, bits - 24, 0]),
    )


def after(beginning, step):
    return str(ipaddress.ip_address(beginning) + step)


def some(networks, least=0):
    return st.lists(networks, min_size=least, max_size=4, unique=True).map(tuple)


def asked(beginning):
    """Some addresses after the first; that may be the unspecified one, which is nobody's."""
    return [after(beginning, step) for step in (*range(1, 5), 200, 1 << 12)]


def entries_of(table):
    entries = Entries(table.family)
    entries.update(table.everything())
    return entries


@examples(150)
@given(st.data(), st.sampled_from(Family))
def test_unclaimed_addresses(data, family):
    networks = around(family, BEGINNINGS[family][0])
    rules = replace(
        node_rules(family),
        service_cidrs=data.draw(some(networks)),
        shared_ranges=tuple(SharedRange(n, "them") for n in data.draw(some(networks))),
    )
    table = ForwardingTable(family, rules)
    entries = entries_of(table)
    for address in asked(BEGINNINGS[family][0]):
        packet = Packet("10.1.0.1" if family is Family.IPV4 else "fd00:1::1", address, 80,
                        Protocol.TCP, "eth0")  # fmt: skip
        assert entries.answer(packet, ()) == of_verdict(resolve(table, packet, ())), address


def a_node_port(family):
    key = ServicePortKey("shop", "web", "", Protocol.TCP)
    target = Target("10.1.0.1" if family is Family.IPV4 else "fd00:1::1", 80, False)
    return ServicePort(
        key=key,
        frontends=(NodePort(PORT),),
        internal=Use.TARGETS,
        external=Use.TARGETS,
        external_local=False,
        targets=(target,),
        local_targets=(),
        sources=None,
        affinity_timeout_s=None,
        serving=frozenset(),
    )


@examples(150)
@given(st.data(), st.sampled_from(Family))
def test_node_ports(data, family):
    """Also where localhost NodePorts lie around loopback, as in no table that was compiled."""
    beginning = data.draw(st.sampled_from(BEGINNINGS[family]))
    networks = around(family, beginning)
    rules = replace(
        node_rules(family),
        node_port_addresses=data.draw(some(networks, 1)),
        localhost_node_ports=data.draw(some(networks)),
    )
    table = ForwardingTable(family, rules)
    entry = a_node_port(family)
    table.apply(TableChanges(family, service_ports={entry.key: entry}))
    entries = entries_of(table)
    local = asked(beginning)
    for address in local:
        for source in (address, "192.0.2.1" if family is Family.IPV4 else "2001:db8::1"):
            packet = Packet(source, address, PORT, Protocol.TCP, "eth0")
            expected = of_verdict(resolve(table, packet, local))
            assert entries.answer(packet, local) == expected, packet
