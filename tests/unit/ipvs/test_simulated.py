"""The image of ipvs mode gives every packet what the reference says, in a simulated kernel."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Surroundings
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import LocalhostNodePorts
from tests.support.core.traffic import packets
from tests.support.core.universe import (
    CHANGES,
    CLUSTER_IPS,
    CLUSTERS,
    EXTERNAL_IPS,
    NODE_ADDRESSES,
    SETTINGS,
    batches,
)
from tests.support.effort import examples
from tests.support.ipvs.world import Node, World, check, check_image


def without_loopback(settings):
    """Return settings as the configuration makes them for ipvs, which cannot serve loopback."""
    never = LocalhostNodePorts.NEVER
    return replace(settings, localhost_ipv4=never, localhost_ipv6=never)


def surroundings(family):
    """What the node may be like: some address of a Service may be its own."""
    return st.sampled_from([(), EXTERNAL_IPS[family][:1], CLUSTER_IPS[family][:1]]).map(
        lambda bound: Surroundings(
            frozenset({NODE_ADDRESSES[family], *bound}), NODE_ADDRESSES[family]
        )
    )


@examples(120)
@given(st.data(), st.sampled_from(Family), SETTINGS.map(without_loopback), CLUSTERS)
def test_every_packet_gets_what_the_reference_says(data, family, settings, cluster):
    compiler = Compiler(settings, [family])
    compiler.apply(cluster)
    table = compiler.tables[family]
    world = World.of(table, data.draw(surroundings(family)))
    check_image(world)
    node = Node(world)
    local = tuple(sorted(node.own))

    for packet in data.draw(st.lists(packets(table, local), min_size=8, max_size=12)):
        check(node, table, packet, mark=data.draw(st.sampled_from([0, STEERED - 1])))


@examples(80)
@given(st.data(), st.sampled_from(Family), SETTINGS.map(without_loopback), CLUSTERS, CHANGES)
def test_only_the_last_table_matters(data, family, settings, cluster, changes):
    compiler = Compiler(settings, [family])
    world = World(family)
    goes = [list(cluster), *data.draw(batches(changes))]
    for each in goes:
        difference = compiler.apply(each).get(family)
        if difference is not None:
            world.update(difference, data.draw(surroundings(family)))

    table = compiler.tables[family]
    assert world.image == World.of(table, world.around).image
