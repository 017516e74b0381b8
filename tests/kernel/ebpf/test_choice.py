"""The programs' own choice, in the kernel, is what the reference says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.resolve import Packet, resolve
from kproxy.core.store import Connected
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
from tests.support.ebpf.choosing import Choosing
from tests.support.ebpf.entries import of_verdict
from tests.support.effort import examples
from tests.support.packets.asking import (
    ASKED,
    LOCAL_ADDRESSES,
    flows_of,
    input_interface,
    listed,
    table_of,
)

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def choosing(bytecode):
    made = {family: Choosing(family, bytecode) for family in Family}
    yield made
    for each in made.values():
        each.close()


def is_one_of(answer, expected):
    """Say whether an answer, which has one endpoint, is one that was expected."""
    return (
        (answer.use, answer.service, answer.via) == (expected.use, expected.service, expected.via)
        and answer.endpoints <= expected.endpoints
        and bool(answer.endpoints) == bool(expected.endpoints)
        and answer.masqueraded == answer.endpoints & expected.masqueraded
    )


@pytest.mark.parametrize(("group", "family"), ASKED)
def test_the_packet_table(choosing, group, family):
    table, mismatches = table_of(group, family), []
    with choosing[family].holding(table, LOCAL_ADDRESSES) as kernel:
        for flow in flows_of(group, family):
            interface = input_interface(flow.source)
            packet = Packet(flow.source, flow.destination, flow.port, flow.protocol, interface)
            expected = of_verdict(resolve(table, packet, LOCAL_ADDRESSES))
            for answer in [kernel.answer(packet) for _ in range(4)]:
                if not is_one_of(answer, expected):
                    mismatches.append(f"{flow}\n  expected {expected}\n  chosen   {answer}")
    assert not mismatches, listed(mismatches)


@examples(100)
@given(st.data(), st.sampled_from(Family), SETTINGS, CLUSTERS, some(CIDRS, 3))
def test_random_packets_into_random_clusters(choosing, data, family, settings, cluster, connected):
    compiler = Compiler(settings, [family])
    compiler.apply([Connected(frozenset(connected)), *cluster])
    table = compiler.tables[family]
    bound_here = data.draw(st.sampled_from([(), EXTERNAL_IPS[family][:1], CLUSTER_IPS[family][:1]]))
    local = (NODE_ADDRESSES[family], *bound_here)
    asked = data.draw(st.lists(packets(table, local), min_size=8, max_size=16))
    with choosing[family].holding(table, local) as kernel:
        for packet in asked:
            expected = of_verdict(resolve(table, packet, local))
            answer = kernel.answer(packet)
            assert is_one_of(answer, expected), (packet, answer, expected)
