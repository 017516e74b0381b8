"""What ipvs mode keeps in the kernel, and how much of it a change touches."""

from dataclasses import replace

import pytest

from backends.ipvs.render import entries
from backends.ipvs.render.entries import (
    Address,
    Destination,
    MarkedServer,
    Member,
    Place,
    Source,
    Steered,
    Steering,
)
from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Renderer, Surroundings
from backends.ipvs.render.service_port import Options
from backends.ipvs.render.sets import SetKind
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.objects import ObjectKey, Protocol
from kproxy.core.resolve import Packet
from kproxy.core.table import HealthCheck, TableChanges, Target, Use, Via, Vip
from tests.support.iptables.applied import changes, rules, service_port
from tests.support.ipvs.world import Node, World

NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
SOURCES = {Family.IPV4: "198.51.100.0/24", Family.IPV6: "2001:db8:7::/48"}
FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)


def around(family, *more):
    return Surroundings(frozenset({NODE[family], *more}), NODE[family])


def shop(family, count=3):
    """A table of services, each with two endpoints."""
    return changes(
        family,
        *(service_port(family, n, endpoints=(2 * n, 2 * n + 1)) for n in range(count)),
        rules=rules(family),
    )


def local_service(family, **parts):
    """A load balancer that keeps to this node's endpoints, and what admits to it."""
    entry = service_port(family, 7, endpoints=(2, 3, 4))
    return replace(
        entry,
        frontends=(*entry.frontends, Vip(Via.LOAD_BALANCER, LOAD_BALANCER[family], 443)),
        external=Use.LOCAL_TARGETS,
        external_local=True,
        local_targets=tuple(target for target in entry.targets if target.local),
        sources=(canonical_network(SOURCES[family]),),
        **parts,
    )


@FAMILIES
def test_one_endpoint_more_is_one_object_for_each_frontend(family):
    world = World(family)
    world.update(shop(family, 50), around(family))

    changed = world.update(changes(family, service_port(family, 9, endpoints=(18, 19, 200))))

    assert {entries.describe(key).split(" behind ")[0] for key in changed} == {
        "10.0.0.200:8080" if family is Family.IPV4 else "[fd00:10::c8]:8080"
    }
    assert len(changed) == 2, "a clusterIP and a NodePort at one address"
    assert not world.update(changes(family, service_port(family, 9, endpoints=(18, 19, 200))))


@FAMILIES
def test_rules_and_sets_are_as_many_for_a_thousand_services_as_for_none(family):
    none, thousand = World(family), World(family)
    none.update(shop(family, 0), around(family))
    thousand.update(shop(family, 1000), around(family))

    named = {key: value for key, value in thousand.image.items() if isinstance(key, str)}
    assert none.image == named
    assert sum(map(len, thousand.chains().values())) < 60
    assert len(Node(thousand).members[SetKind.CLUSTER_IP]) == 1000


@FAMILIES
def test_endpoints_of_both_lists_are_behind_one_address_by_a_mark(family):
    world = World(family)
    world.update(changes(family, local_service(family), rules=rules(family)), around(family))
    node = Node(world)

    (marked,) = (server for server in node.servers if isinstance(server, MarkedServer))
    outside = Place(LOAD_BALANCER[family], Protocol.TCP, 443)
    inside = next(iter(node.members[SetKind.CLUSTER_IP]))
    assert node.targets[marked] == node.targets[inside] > node.targets[outside]
    assert node.members[SetKind.LOCAL_POLICY][outside] == marked.mark.to_bytes(4, "big")
    source = Source(outside, canonical_network(SOURCES[family]))
    assert set(node.members[SetKind.ADMITTED]) == {source}
    assert not world.renderer.unheld()


@FAMILIES
def test_affinity_beside_a_mark_is_by_a_hash_and_is_told(family):
    world = World(family, Options(scheduler="lc"))
    entry = local_service(family, affinity_timeout_s=300)
    world.update(changes(family, entry, rules=rules(family)), around(family))
    node = Node(world)

    by_place = {node.servers[each] for each in node.servers if isinstance(each, Place)}
    (marked,) = (node.servers[each] for each in node.servers if isinstance(each, MarkedServer))
    assert (by_place, marked) == ({"lc:1:300"}, "mh:0:0")
    assert "hash" in world.renderer.unheld()[entry.key]

    world.update(changes(family, replace(entry, affinity_timeout_s=None)))
    assert not world.renderer.unheld()


@FAMILIES
def test_without_a_scheduler_that_hashes_affinity_beside_a_mark_is_off_and_told(family):
    world = World(family, Options(hashes=False))
    entry = local_service(family, affinity_timeout_s=300)
    world.update(changes(family, entry, rules=rules(family)), around(family))
    servers = Node(world).servers

    (marked,) = (servers[each] for each in servers if isinstance(each, MarkedServer))
    assert marked == "rr:0:0"
    assert "no scheduler mh" in world.renderer.unheld()[entry.key]


def test_a_scheduler_that_hashes_takes_the_port_in_as_upstream_does():
    world = World(Family.IPV4, Options(scheduler="mh"))
    world.update(shop(Family.IPV4, 1), around(Family.IPV4))

    assert set(Node(world).servers.values()) == {"mh:16:0"}


@FAMILIES
def test_node_ports_and_the_link_follow_the_addresses_of_the_node(family):
    world = World(family)
    world.update(shop(family, 2), around(family))
    cluster_ip = world_address(family, 1)
    other = "192.0.2.77" if family is Family.IPV4 else "2001:db8::77"
    source = entries.packed(NODE[family])
    assert Node(world).link == {world_address(family, n): source for n in (1, 2)}

    world.update(TableChanges(family), around(family, other, cluster_ip))
    node = Node(world)
    where = {s.address for s in node.servers if isinstance(s, Place) and s.port >= 30000}
    assert where == {NODE[family], other, cluster_ip}
    assert node.link.keys() == {world_address(family, 2)}
    assert node.members[SetKind.CLUSTER_ADDRESSES].keys() == {world_address(family, 2)}

    world.update(TableChanges(family), replace(around(family), source=None))
    assert Node(world).link == {world_address(family, n): b"" for n in (1, 2)}


def world_address(family, number):
    """The address of a clusterIP of `shop`."""
    (vip, *_) = service_port(family, number - 1).frontends
    return vip.address


@FAMILIES
def test_a_service_that_is_gone_leaves_nothing(family):
    world = World(family)
    world.update(changes(family, rules=rules(family)), around(family))
    empty = dict(world.image)
    entry = local_service(family, affinity_timeout_s=60)
    check = {ObjectKey("shop", "a"): HealthCheck(32000, 1)}
    world.update(replace(changes(family, entry), health_checks=check))
    assert Node(world).members[SetKind.HEALTH].keys() == {32000}

    world.update(
        TableChanges(
            family,
            service_ports={entry.key: None},
            cluster_ips={entry.frontends[0].address: False},
            health_checks=dict.fromkeys(check),
        )
    )

    assert world.image == empty
    assert not world.renderer.unheld()
    assert not world.renderer.owners(world.image)


@FAMILIES
def test_what_others_have_is_left_out_and_told_and_nothing_else_is(family):
    table = shop(family)
    alone, beside = World(family), World(family)
    alone.update(table, around(family))
    beside.update(table, around(family))
    entry = next(iter(table.service_ports.values()))
    (cluster_ip,) = (each.address for each in entry.frontends if isinstance(each, Vip))
    taken = Place(cluster_ip, entry.key.protocol, 80)
    raw = entries.place_bytes(taken)

    beside.update(changes(family), replace(around(family), taken=frozenset({taken})))
    missing = {key for key in alone.image if key not in beside.image}
    assert {key for key in missing if raw not in key} == {
        entries.address_key(cluster_ip),
        entries.member_key(SetKind.CLUSTER_ADDRESSES, entries.packed(cluster_ip)),
    }
    assert not [key for key in beside.image if isinstance(key, bytes) and raw in key]
    ((key, why),) = beside.renderer.unheld().items()
    assert key == entry.key
    assert why == f"{entries.describe(entries.server_key(raw))} is somebody else's, and stays so"
    assert beside.renderer.has_frontend_at(raw)
    assert not beside.update(table), "as long as it is taken"

    beside.update(changes(family), around(family))
    assert beside.image == alone.image
    assert beside.renderer.unheld() == {}


@FAMILIES
def test_a_node_port_holds_at_all_addresses_but_one_that_others_have(family):
    world = World(family)
    there = around(family, LOAD_BALANCER[family])
    world.update(shop(family, 1), there)
    before = {key for key in world.image if key[:1] == b"V"}
    (port,) = {entries.entry(key).port for key in before} - {80}
    taken = Place(NODE[family], Protocol.TCP, port)
    world.update(changes(family), replace(there, taken=frozenset({taken})))

    after = {key for key in world.image if key[:1] == b"V"}
    assert before - after == {entries.server_key(entries.place_bytes(taken))}
    assert len(world.renderer.unheld()) == 1
    world.update(TableChanges(family, service_ports={service_port(family, 0).key: None}))
    assert world.renderer.unheld() == {}, "the Service has it no more"


@FAMILIES
def test_an_external_address_is_on_the_link_for_marked_packets_alone(family):
    world = World(family)
    entry = local_service(family)
    cluster_ip = world_address(family, 8)
    world.update(changes(family, entry, rules=rules(family)), around(family))
    node = Node(world)
    assert (node.link.keys(), node.steered, node.steers) == (
        {cluster_ip},
        {LOAD_BALANCER[family]},
        True,
    )
    assert node.members[SetKind.STEERED_ADDRESSES].keys() == node.steered
    client = str(canonical_network(SOURCES[family])[7])
    others_use_our_bit = STEERED
    for port, mark, becomes in (
        (443, 0, "forward"),
        (443, others_use_our_bit, "forward"),
        (444, 0, "pass"),
        (444, others_use_our_bit, "reject"),
    ):
        packet = Packet(client, LOAD_BALANCER[family], port, Protocol.TCP, "eth0")
        assert node.fate(packet, mark=mark).what == becomes

    world.update(TableChanges(family), around(family, LOAD_BALANCER[family]))
    node = Node(world)
    assert (node.link.keys(), node.steered, node.steers) == ({cluster_ip}, set(), False)

    world.update(TableChanges(family, cluster_ips={LOAD_BALANCER[family]: True}), around(family))
    node = Node(world)
    assert (node.link.keys(), node.steers) == ({cluster_ip, LOAD_BALANCER[family]}, False)


def test_nothing_can_be_rendered_before_the_rules_of_the_node():
    with pytest.raises(ValueError, match="node rules"):
        Renderer(Family.IPV4, Options()).update(TableChanges(Family.IPV4), Surroundings())


@FAMILIES
@pytest.mark.parametrize("protocol", Protocol, ids=lambda protocol: protocol.value)
def test_each_key_says_what_it_stands_for(family, protocol):
    v4 = family is Family.IPV4
    place = Place("10.96.0.10" if v4 else "fd00:96::10", protocol, 53)
    where = f"{'10.96.0.10:53' if v4 else '[fd00:96::10]:53'} {protocol.value}"
    server = entries.place_bytes(place)
    marked = entries.marked_bytes(0x80000001)
    target = Target("10.1.0.2" if v4 else "fd00:1::2", 5353, local=True)
    network = canonical_network(SOURCES[family])
    expected = {
        entries.address_key(place.address): (
            Address(place.address),
            f"the address {place.address} of our link",
        ),
        entries.server_key(server): (place, f"the virtual server {where}"),
        entries.server_key(marked): (
            MarkedServer(0x80000001),
            "the virtual server of mark 0x80000001",
        ),
        entries.destination_key(server, target.address, target.port): (
            Destination(place, target.address, target.port),
            f"{target} behind the virtual server {where}",
        ),
        entries.destination_key(marked, target.address, target.port): (
            Destination(MarkedServer(0x80000001), target.address, target.port),
            f"{target} behind the virtual server of mark 0x80000001",
        ),
        entries.member_key(SetKind.REFUSED, server): (
            Member(SetKind.REFUSED, place),
            f"the element {where} of the ipset refused",
        ),
        entries.member_key(SetKind.ADMITTED, entries.source_bytes(place, network)): (
            Member(SetKind.ADMITTED, Source(place, network)),
            f"the element {where} from {network} of the ipset admitted",
        ),
        entries.steered_key(place.address): (
            Steered(place.address),
            f"the address {place.address} of our link, for packets of our mark",
        ),
        entries.STEERING: (
            Steering(),
            "the rule that leads packets of our mark to our link",
        ),
        entries.member_key(SetKind.STEERED_ADDRESSES, entries.packed(place.address)): (
            Member(SetKind.STEERED_ADDRESSES, place.address),
            f"the element {place.address} of the ipset steered-addresses",
        ),
        entries.member_key(SetKind.HEALTH, entries.port_bytes(32000)): (
            Member(SetKind.HEALTH, 32000),
            "the element 32000 of the ipset health",
        ),
    }
    found = {key: (entries.entry(key), entries.describe(key)) for key in expected}
    assert found == expected


@FAMILIES
def test_a_frontend_with_an_address_goes_before_a_node_port_of_the_same_number(family):
    world = World(family)
    table = changes(family, service_port(family, 1, endpoints=(2,)), rules=rules(family))
    world.update(table, around(family))
    alone = dict(world.image)
    place = Place(NODE[family], Protocol.TCP, 30001)
    before = Node(world).targets[place]

    entry = service_port(family, 5, endpoints=(3,))
    entry = replace(entry, frontends=(Vip(Via.EXTERNAL_IP, place.address, place.port),))
    world.update(TableChanges(family, service_ports={entry.key: entry}))
    assert Node(world).targets[place] == {str(target) for target in entry.targets} != before
    assert world.renderer.owners([entries.server_key(entries.place_bytes(place))]) == {entry.key}

    world.update(TableChanges(family, service_ports={entry.key: None}))
    assert world.image == alone


@FAMILIES
def test_an_endpoint_that_is_a_frontend_of_another_service_is_not_judged_again(family):
    entry = service_port(family, 1, endpoints=(2,))
    behind = replace(entry, targets=(Target(NODE[family], 30000, local=False),))
    refused = service_port(family, 0)
    world = World(family)
    world.update(changes(family, behind, refused, rules=rules(family)), around(family))
    packet = Packet(
        SOURCES[family].split("/")[0], world_address(family, 2), 80, Protocol.TCP, "eth0"
    )

    assert Node(world).fate(packet).targets == {str(behind.targets[0])}
