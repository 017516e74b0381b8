"""The rules give every packet what the reference says, in a simulated kernel."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backends.iptables.render.services import affinity_sets
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.resolve import Forward, resolve
from kproxy.core.settings import LocalhostNodePorts
from tests.support.core.traffic import packets
from tests.support.core.universe import (
    CLUSTER_IPS,
    CLUSTERS,
    EXTERNAL_IPS,
    NODE_ADDRESSES,
    SETTINGS,
)
from tests.support.effort import examples
from tests.support.iptables.world import World, check, fates


def without_ipv6_loopback(settings):
    """Return settings as the configuration makes them for iptables, which cannot serve ::1."""
    return replace(settings, localhost_ipv6=LocalhostNodePorts.NEVER)


@examples(120)
@given(st.data(), st.sampled_from(Family), SETTINGS.map(without_ipv6_loopback), CLUSTERS)
def test_every_packet_gets_what_the_reference_says(data, family, settings, cluster):
    compiler = Compiler(settings, [family])
    compiler.apply(cluster)
    table = compiler.tables[family]
    tables = World.of(table).tables()
    bound_here = data.draw(st.sampled_from([(), EXTERNAL_IPS[family][:1], CLUSTER_IPS[family][:1]]))
    local = (NODE_ADDRESSES[family], *bound_here)

    for packet in data.draw(st.lists(packets(table, local), min_size=8, max_size=12)):
        check(tables, table, packet, local)


@examples(60)
@given(st.data(), st.sampled_from(Family), SETTINGS.map(without_ipv6_loopback), CLUSTERS)
def test_a_remembered_client_goes_where_it_was(data, family, settings, cluster):
    compiler = Compiler(settings, [family])
    compiler.apply(cluster)
    table = compiler.tables[family]
    local = (NODE_ADDRESSES[family],)
    tables = World.of(table).tables()

    for packet in data.draw(st.lists(packets(table, local), min_size=4, max_size=8)):
        verdict = resolve(table, packet, local)
        if not isinstance(verdict, Forward) or verdict.affinity_timeout_s is None:
            continue
        target = data.draw(st.sampled_from(verdict.targets))
        (fate, *more) = fates(tables, packet, local)
        sets = {}
        for each in (fate, *more):
            sets[each.target] = each.remembered[0]
        known = {each.name for each in affinity_sets(table.service_ports[verdict.service], family)}
        assert set(sets.values()) <= known

        again = list(fates(tables, packet, local, [sets[str(target)]]))
        assert {each.target for each in again} == {str(target)}
        assert {each.remembered for each in again} == {(sets[str(target)],)}
