"""The entries of the maps give every packet what the reference says."""

import dataclasses
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ebpf.render.layout import Use
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Packet, resolve
from kproxy.core.store import Connected
from kproxy.core.table import Via, Vip
from tests.support.core.things import networks
from tests.support.core.traffic import packets
from tests.support.core.universe import (
    CIDRS,
    CLUSTER_IPS,
    CLUSTERS,
    EXTERNAL_IPS,
    NODE_ADDRESSES,
    SETTINGS,
    some,
)
from tests.support.ebpf.entries import Entries, of_verdict
from tests.support.effort import examples
from tests.support.packets.asking import (
    ASKED,
    LOCAL_ADDRESSES,
    flows_of,
    input_interface,
    listed,
    table_of,
)
from tests.support.tables import service_port, table

VIPS = (Via.CLUSTER_IP, Via.EXTERNAL_IP, Via.LOAD_BALANCER)


@functools.cache
def entries_of(group, family):
    entries = Entries(family)
    entries.update(table_of(group, family).everything())
    return entries


@pytest.mark.parametrize(("group", "family"), ASKED)
def test_the_packet_table(group, family):
    table, entries = table_of(group, family), entries_of(group, family)
    mismatches = []
    for flow in flows_of(group, family):
        packet = Packet(
            flow.source, flow.destination, flow.port, flow.protocol, input_interface(flow.source)
        )
        verdict = resolve(table, packet, LOCAL_ADDRESSES)
        answer = entries.answer(packet, LOCAL_ADDRESSES)
        if answer != of_verdict(verdict):
            mismatches.append(f"{flow}\n  resolve: {verdict}\n  entries: {answer}")
    assert not mismatches, listed(mismatches)


@examples(150)
@given(st.data(), st.sampled_from(Family), SETTINGS, CLUSTERS, some(CIDRS, 3))
def test_random_packets_into_random_clusters(data, family, settings, cluster, connected):
    compiler = Compiler(settings, [family])
    compiler.apply([Connected(frozenset(connected)), *cluster])
    table, entries = compiler.tables[family], Entries(family)
    entries.update(table.everything())
    bound_here = data.draw(st.sampled_from([(), EXTERNAL_IPS[family][:1], CLUSTER_IPS[family][:1]]))
    local = (NODE_ADDRESSES[family], *bound_here)

    for packet in data.draw(st.lists(packets(table, local), min_size=8, max_size=16)):
        expected = of_verdict(resolve(table, packet, local))
        assert entries.answer(packet, local) == expected, packet


@pytest.mark.parametrize("sources", [(), networks("203.0.113.0/24")])
def test_who_is_not_among_the_sources_gets_nothing(sources):
    """Not even a refusal; at the other frontends everybody is served as usual."""
    vips = [Vip(via, f"203.0.113.{n}", 80) for n, via in enumerate(VIPS, start=1)]
    for entry in (service_port(Family.IPV4, 1, []), service_port(Family.IPV4, 1, [1])):
        limited = dataclasses.replace(entry, frontends=tuple(vips), sources=sources)
        current, entries = table(Family.IPV4, limited), Entries(Family.IPV4)
        entries.update(current.everything())
        for vip in vips:
            packet = Packet("198.51.100.1", vip.address, vip.port, Protocol.TCP, "eth0")
            answer = entries.answer(packet, ())
            assert answer == of_verdict(resolve(current, packet, ()))
            assert (answer.use is Use.DROP) == (vip.via is Via.LOAD_BALANCER)
