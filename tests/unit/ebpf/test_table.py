"""Writing a table: no packet meets half a change, full maps, faults."""

import dataclasses
import errno
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ebpf.render.layout import packed
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.image import Changes, diff
from kproxy.core.objects import Kind
from kproxy.core.settings import NodePortKeyword
from kproxy.core.store import Replaced
from kproxy.core.table import FromNetwork, SharedRange, TableChanges, Via, Vip
from kproxy.ports.data_path import BackendError
from tests.support.core.things import networks
from tests.support.core.traffic import packets
from tests.support.core.universe import CLUSTERS, NODE_ADDRESSES, SETTINGS
from tests.support.ebpf.entries import SIZES, Entries, image_of
from tests.support.ebpf.fake_maps import FakeNode
from tests.support.effort import examples
from tests.support.tables import between, pod, service_port, some_tables, table, vip

NETWORKS = {
    Family.IPV4: ("10.96.0.0/16", "10.96.7.0/24"),
    Family.IPV6: ("fd00:96::/112", "fd00:96::f0/124"),
}


def without_sources(cluster):
    """A client that is admitted while the endpoints change may meet either of these."""
    services, *others = cluster
    objects = tuple(dataclasses.replace(each, source_ranges=()) for each in services.objects)
    return [Replaced(Kind.SERVICE, objects), *others]


@examples(40)
@given(st.data(), st.sampled_from(Family), SETTINGS, CLUSTERS, CLUSTERS)
def test_every_packet_meets_the_old_table_or_the_new_one_at_every_step(
    data, family, settings, first, second
):
    """Where NodePorts hold and who is a local pod stays: whose they are may change meanwhile."""
    settings = dataclasses.replace(settings, node_port_addresses=(NodePortKeyword.ALL,))
    local = (NODE_ADDRESSES[family],)
    node, seen = FakeNode(family), Entries(family)
    states = []
    services, slices, _, cidrs = second
    for cluster in (first, (services, slices, first[2], cidrs)):
        compiler = Compiler(settings, [family])
        compiler.apply(without_sources(cluster))
        states.append(compiler.tables[family])
    old, new = states
    asked = [
        packet
        for each in states
        for packet in data.draw(st.lists(packets(each, local), min_size=4, max_size=8))
    ]
    node.reconciler.apply(old.everything())
    seen.renderer.update(old.everything())  # by which devices pods are known, a driver knows
    allowed = []
    for state in states:
        entries = Entries(family)
        entries.update(state.everything())
        allowed.append([entries.answer(packet, local) for packet in asked])

    def look():
        seen.image = node.image()
        for packet, *answers in zip(asked, *allowed, strict=True):
            assert seen.answer(packet, local) in answers, packet

    look()
    node.follow(look)
    node.reconciler.apply(between(old, new))
    assert node.image() == image_of(new)


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_pods_are_told_apart_before_frontends_rely_on_it_and_after_they_did(family):
    pods = networks("10.1.0.0/16", "fd00:1::/64")[family is Family.IPV6]
    plain = table(family, service_port(family, 1, [1]))
    telling = dataclasses.replace(
        plain, rules=dataclasses.replace(plain.rules, local_pods=FromNetwork(pods))
    )
    for old, new in ((plain, telling), (telling, plain)):
        node, order = FakeNode(family), []
        node.reconciler.apply(old.everything())
        for name in ("frontends", "table_rules"):
            node.maps[name].wrote = functools.partial(order.append, name)
        node.reconciler.apply(between(old, new))
        assert order == sorted(order, reverse=new is telling)


def test_ranges_are_there_before_they_are_asked_for_and_until_nobody_asks():
    entry = service_port(Family.IPV4, 1, [1])
    open_to_all = dataclasses.replace(entry, frontends=(Vip(Via.LOAD_BALANCER, "203.0.113.1", 80),))
    limited = dataclasses.replace(open_to_all, sources=networks("198.51.100.0/24"))
    node, ranges = FakeNode(), []
    there = node.maps["source_ranges"].entries
    node.reconciler.apply(table(Family.IPV4, open_to_all).everything())
    node.maps["frontends"].wrote = lambda: ranges.append(len(there))
    for entry in (limited, open_to_all):
        node.reconciler.apply(TableChanges(Family.IPV4, service_ports={entry.key: entry}))
    assert ranges == [1, 1]
    assert not there


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_a_commit_that_fails_anywhere_is_finished_by_the_next(family):
    first, second = some_tables(family)[3:5]
    steps = 0
    while True:
        node, left = FakeNode(family), [steps]
        node.reconciler.apply(first.everything())

        def fail(node=node, left=left):
            left[0] -= 1
            if left[0] < 0:
                for each in node.maps.values():
                    each.refuses = errno.EIO

        node.follow(fail)
        try:
            node.reconciler.apply(between(first, second))
        except BackendError:
            pass
        else:
            if left[0] >= 0:
                break
        for each in node.maps.values():
            each.refuses = None
        node.follow(lambda: None)
        node.start()
        node.reconciler.apply(second.everything())
        assert node.image() == image_of(second)
        steps += 1
    assert steps >= 6


def test_a_clusterip_is_served_where_there_is_no_room_for_its_wildcard():
    ports = [service_port(Family.IPV4, n, [n]) for n in range(1, 9)]
    node = FakeNode()
    smaller(node, "frontends", 9)
    wanted = table(Family.IPV4, *ports)
    applied(node, wanted.everything())
    assert len(node.reconciler.unheld) == 7
    assert all("other ports" in why for why in node.reconciler.unheld.values())
    assert len(image_of(wanted)) - len(node.image()) == 7

    smaller(node, "frontends", 16)
    node.reconciler.settle()
    node.reconciler.apply(TableChanges(Family.IPV4))
    assert node.image() == image_of(wanted)


def applied(node, changes):
    """Apply as the loop does: once more after a refusal, and what was refused again from time."""
    try:
        node.reconciler.apply(changes)
    except BackendError:
        node.reconciler.apply(TableChanges(node.family))
    node.reconciler.settle()


def smaller(node, name, size):
    """Let a map refuse earlier than it was said to."""
    node.maps[name].shape = node.maps[name].shape._replace(max_entries=size)


@pytest.mark.parametrize(("name", "size"), [("frontends", 5), ("chunks", 4), ("members", 7)])
def test_what_a_full_map_refuses_is_left_out_and_all_else_is_in_force(name, size):
    ports = [service_port(Family.IPV4, n, [n, n + 1], affinity_s=60) for n in range(1, 9)]
    node = FakeNode()
    smaller(node, name, size)
    wanted = table(Family.IPV4, *ports)
    applied(node, wanted.everything())

    unheld = node.reconciler.unheld
    assert all(why.endswith(f": the map {name} is full") for why in unheld.values())
    held = {
        port.key: port for port in ports if "not refused" in unheld.get(port.key, "not refused")
    }
    assert 0 < len(held) < len(ports)
    partly = image_of(dataclasses.replace(wanted, service_ports=held))
    assert {**partly, **node.image()} == partly
    assert len(node.image()) == len(partly) - (name == "frontends") * len(ports)

    smaller(node, name, SIZES[name])
    node.reconciler.settle()
    node.reconciler.apply(TableChanges(Family.IPV4), retry=True)
    assert not node.reconciler.unheld
    assert node.image() == image_of(wanted)


def test_what_is_refused_is_not_tried_again_while_there_is_no_room():
    ports = [service_port(Family.IPV4, n, [n]) for n in range(1, 9)]
    node = FakeNode()
    smaller(node, "chunks", 4)
    applied(node, table(Family.IPV4, *ports).everything())
    unheld = node.reconciler.unheld
    image = node.image()
    for _ in range(3):
        node.reconciler.settle()
        node.reconciler.apply(TableChanges(Family.IPV4))
    assert node.reconciler.unheld == unheld
    assert node.image() == image, "and nothing that was tried is left"

    other = service_port(Family.IPV4, 9, [9])
    applied(node, TableChanges(Family.IPV4, service_ports={other.key: other}))
    (gone,) = (port.key for port in ports[:1])
    applied(node, TableChanges(Family.IPV4, service_ports={gone: None}))
    node.reconciler.apply(TableChanges(Family.IPV4))
    assert node.reconciler.unheld.keys() == {*unheld, other.key}, "one place is too few for all"


@pytest.mark.parametrize("name", ["frontends", "chunks", "members", "source_ranges"])
def test_what_lacked_memory_is_tried_in_secret_until_there_is_some(name):
    family = Family.IPV4
    entry = service_port(family, 1, [1], affinity_s=60)
    where = (Vip(Via.LOAD_BALANCER, "203.0.113.1", 80),)
    entry = dataclasses.replace(entry, frontends=where, sources=networks("10.0.0.0/8"))
    wanted = dataclasses.replace(table(family, entry), cluster_ips=set())
    node = FakeNode(family)
    node.maps[name].refuses = errno.ENOMEM
    applied(node, wanted.everything())
    assert node.reconciler.unheld == {entry.key: f"left out: no memory for the map {name}"}
    image = node.image()
    node.reconciler.settle()
    assert node.reconciler.unheld, "still none"

    node.maps[name].refuses = None
    tried = []
    node.maps[name].wrote = lambda: tried.append(len(node.maps[name].entries))
    node.reconciler.settle()
    assert tried == [1, 0]
    assert node.image() == image
    node.reconciler.apply(TableChanges(family))
    assert not node.reconciler.unheld
    assert node.image() == image_of(wanted)


def test_new_lists_take_the_place_of_old_ones_in_a_map_that_has_no_room_for_both():
    node = FakeNode()
    smaller(node, "chunks", 6)
    old = [service_port(Family.IPV4, n, [n]) for n in range(1, 6)]
    new = [service_port(Family.IPV4, n, [n, 100]) for n in range(1, 6)]
    node.reconciler.apply(table(Family.IPV4, *old).everything())
    node.reconciler.apply(between(table(Family.IPV4, *old), table(Family.IPV4, *new)))
    assert not node.reconciler.unheld
    assert node.image() == image_of(table(Family.IPV4, *new))


def test_a_service_port_that_cannot_follow_stays_as_it_is_until_there_is_room():
    """In a map without a single free place, its old list stays as long as its frontend does."""
    node = FakeNode()
    old, new = (service_port(Family.IPV4, 1, range(1, n)) for n in (2, 3))
    other = service_port(Family.IPV4, 2, [9])
    node.reconciler.apply(table(Family.IPV4, old, other).everything())
    before = node.image()
    smaller(node, "chunks", 2)
    with pytest.raises(BackendError, match="filling the maps"):
        node.reconciler.apply(TableChanges(Family.IPV4, service_ports={new.key: new}))
    assert node.image() == before

    node.reconciler.apply(TableChanges(Family.IPV4))
    assert node.reconciler.unheld.keys() == {new.key}
    assert node.image() == before
    smaller(node, "chunks", 16)
    node.reconciler.apply(TableChanges(Family.IPV4), retry=True)
    assert not node.reconciler.unheld, "there is room by now"
    assert node.image() == image_of(table(Family.IPV4, new, other))


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_what_packets_may_be_for_is_claimed_before_it_is_written(family):
    """And again for what an earlier run wrote, since that may have claimed less."""
    cidr, hole = networks(*NETWORKS[family])
    entry = service_port(family, 1, range(1, 20), node_port=30001)
    made = table(family, entry)
    shared = (SharedRange(hole, "somebody"),)
    rules = dataclasses.replace(made.rules, service_cidrs=(cidr,), shared_ranges=shared)
    made = dataclasses.replace(made, rules=rules)
    wanted = {packed(vip(family, 1))}
    endpoints = {packed(pod(family, n)) for n in range(1, 20)}
    dropped = {(cidr.network_address.packed, cidr.prefixlen)}
    node = FakeNode(family)
    for _ in ("first", "again"):

        def check(claimed=node.claimed):
            assert (claimed.frontends, claimed.networks) == (wanted, dropped)
            assert claimed.endpoints == endpoints

        node.follow(check)
        node.reconciler.apply(made.everything())
        check()
        node.start()


def test_a_restart_finds_nothing_to_do_and_keeps_nothing_twice():
    wanted = some_tables(Family.IPV4)[5]
    node = FakeNode()
    node.reconciler.apply(wanted.everything())
    node.start()
    want = dict(node.tables.render(wanted.everything()))
    seen = node.tables.observe()
    assert diff(seen, want) == Changes({}, frozenset())
    assert all(seen[key] is value for key, value in want.items())
