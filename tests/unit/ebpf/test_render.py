"""The image of a table: the same by any way there, small changes, and what is left out."""

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ebpf.render import lists
from backends.ebpf.render.describe import address_text
from backends.ebpf.render.layout import TableMap, layout
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.settings import DetectLocalMode, Settings
from kproxy.core.table import FromInterface, TableChanges, Target, Undetected
from tests.support.core.things import HERE, a_port, a_service, a_slice, listed
from tests.support.core.universe import CHANGES, CLUSTERS, SETTINGS
from tests.support.ebpf.entries import SIZES, Entries, image_of
from tests.support.effort import examples
from tests.support.tables import between, service_port, some_tables, table

# Little enough that random clusters do not fit.
TIGHT = {**SIZES, "frontends": 8, "chunks": 3, "members": 5, "source_ranges": 3}


@examples(80)
@given(
    st.data(),
    st.sampled_from(Family),
    SETTINGS,
    CLUSTERS,
    CHANGES,
    st.sampled_from([SIZES, TIGHT]),
)
def test_only_the_last_table_matters(data, family, settings, cluster, changes, sizes):
    """However we got there, in a node with room and in one without."""
    compiler, entries, pending = Compiler(settings, [family]), Entries(family, sizes), None
    for change in [*cluster, *changes]:
        changed = compiler.apply([change]).get(family)
        if changed is not None:
            pending = changed if pending is None else pending.then(changed)
        if pending is not None and data.draw(st.booleans()):
            entries.update(pending)
            pending = None
    if pending is not None:
        entries.update(pending)
    if not entries.image:
        return

    fresh = Entries(family, sizes)
    fresh.update(compiler.tables[family].everything())
    assert entries.image == fresh.image
    assert entries.renderer.unheld() == fresh.renderer.unheld()
    assert not entries.update(compiler.tables[family].everything()), "again changes nothing"
    check_references(entries)


def check_references(entries):
    """Every list that is there is whole and led to, and no map holds more than it can."""
    shapes = entries.layout
    values = [entries.image[key] for key in entries.keys(TableMap.FRONTENDS)]
    led_to = {shapes.frontend.unpack(value)[1] for value in values} - {bytes(8)}
    assert {shapes.list_of(key) for key in entries.keys(TableMap.CHUNKS)} == led_to
    assert {shapes.list_of(key) for key in entries.keys(TableMap.MEMBERS)} <= led_to


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_any_table_after_any_other_and_back(family):
    tables = some_tables(family)
    detecting = replace(tables[1].rules, local_pods=FromInterface("cbr0"))
    tables.append(replace(tables[1], rules=detecting))
    for first in tables:
        entries = Entries(family)
        entries.update(first.everything())
        for second in tables:
            entries.update(between(first, second))
            assert entries.image == image_of(second)
            entries.update(between(second, first))
            assert entries.image == image_of(first)


def count_calls(monkeypatch, of):
    calls = []
    original = getattr(lists, of)
    monkeypatch.setattr(lists, of, lambda *given: calls.append(given) or original(*given))
    return calls


def test_one_endpoint_costs_the_work_of_its_service_port(monkeypatch):
    """Counted, not timed: arranged lists, and entries that differ."""
    ports = [service_port(Family.IPV4, number, [number, 250]) for number in range(1, 200)]
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, *ports).everything())
    calls = count_calls(monkeypatch, "arrange")

    new = service_port(Family.IPV4, 7, [7, 251])
    differing = entries.update(TableChanges(Family.IPV4, service_ports={new.key: new}))
    assert len(calls) == 1
    assert len(differing) == 3, "the new list, the old one, and the frontend"


def test_what_is_gone_takes_no_memory():
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4).everything())
    versions = [service_port(Family.IPV4, 1, [n % 250, n >> 8], affinity_s=60) for n in range(2000)]

    def follow(versions):
        for each in versions:
            entries.update(TableChanges(Family.IPV4, service_ports={each.key: each}))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = follow(versions[:10])
        assert follow(versions[10:]) - before < 20_000
    finally:
        tracemalloc.stop()


def test_lists_of_the_same_content_are_there_once():
    ports = [service_port(Family.IPV4, number, [1, 2]) for number in (1, 2)]
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, *ports).everything())
    (chunk,) = entries.keys(TableMap.CHUNKS)
    assert entries.renderer.owners([chunk]) == {port.key for port in ports}

    entries.update(TableChanges(Family.IPV4, service_ports={ports[0].key: None}))
    assert entries.keys(TableMap.CHUNKS) == {chunk}
    before = set(entries.image)
    entries.update(TableChanges(Family.IPV4, service_ports={ports[1].key: None}))
    assert not entries.keys(TableMap.CHUNKS)
    assert not entries.renderer.owners(before)


TARGETS = st.lists(st.integers(1, 60), unique=True).map(
    lambda numbers: tuple(Target(f"10.1.0.{n}", 8080, n % 2 == 0) for n in sorted(numbers))
)


@examples(100)
@given(TARGETS, TARGETS)
def test_both_lists_lie_in_one_array(everywhere, local):
    """However they overlap: each is a part of it, and no target is there twice."""
    arranged = lists.arrange(layout(Family.IPV4), everywhere, local)
    there = [
        Target(address_text(address), int.from_bytes(port, "big"), bool(is_local))
        for address, port, is_local in layout(Family.IPV4).target.iter_unpack(arranged.content)
    ]
    assert len(there) == len({*everywhere, *local})
    for part, wanted in ((arranged.everywhere, everywhere), (arranged.local, local)):
        found = there[part.first : part.first + part.size]
        assert set(found) == set(wanted)
        assert len(found) == len(wanted)


@pytest.mark.parametrize(("count", "chunks"), [(1, 1), (16, 1), (17, 2), (40, 3)])
def test_a_list_is_cut_into_chunks(count, chunks):
    port = service_port(Family.IPV4, 1, range(1, count + 1), affinity_s=60)
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, port).everything())
    assert len(entries.keys(TableMap.CHUNKS)) == chunks
    assert len(entries.keys(TableMap.MEMBERS)) == count


def test_members_are_kept_for_affinity_and_for_udp():
    """And where a list is shared, as long as one of those who have it needs them."""
    usual = service_port(Family.IPV4, 1, [1, 2])
    sticky = service_port(Family.IPV4, 2, [1, 2], affinity_s=60)
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, usual).everything())
    assert not entries.keys(TableMap.MEMBERS)
    entries.update(TableChanges(Family.IPV4, service_ports={sticky.key: sticky}))
    assert len(entries.keys(TableMap.MEMBERS)) == 2
    entries.update(TableChanges(Family.IPV4, service_ports={sticky.key: None}))
    assert not entries.keys(TableMap.MEMBERS)
    udp = service_port(Family.IPV4, 3, [1, 2], protocol=Protocol.UDP)
    entries.update(TableChanges(Family.IPV4, service_ports={udp.key: udp}))
    assert len(entries.keys(TableMap.MEMBERS)) == 2


def test_a_list_that_no_frontend_leads_to_is_not_there():
    entry = service_port(Family.IPV4, 1, [1, 2])
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, replace(entry, frontends=())).everything())
    assert not entries.keys(TableMap.CHUNKS)


def crowded(count):
    targets = tuple(Target(f"10.1.{n >> 8}.{n & 255}", 8080, False) for n in range(count))
    return replace(service_port(Family.IPV4, 1, [1]), targets=targets)


def test_more_endpoints_than_positions_are_left_out_and_all_else_is_there():
    crowd, other = crowded(65_536), service_port(Family.IPV4, 2, [1])
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, crowd, other).everything())
    (reason,) = entries.renderer.unheld().values()
    assert entries.renderer.unheld().keys() == {crowd.key}
    assert "65536 endpoints" in reason
    assert len(entries.keys(TableMap.CHUNKS)) == 1

    fewer = crowded(65_535)
    entries.update(TableChanges(Family.IPV4, service_ports={fewer.key: fewer}))
    assert not entries.renderer.unheld()
    assert len(entries.keys(TableMap.CHUNKS)) == 1 + 4096


def test_the_last_by_name_are_left_out_where_there_is_no_room():
    """A wildcard for each clusterIP counts too, and a part of the map stays free."""
    sizes = {**SIZES, "frontends": 64}
    ports = [service_port(Family.IPV4, number, [number]) for number in range(1, 41)]
    entries = Entries(Family.IPV4, sizes)
    entries.update(table(Family.IPV4, *ports).everything())
    by_name = sorted(port.key.name for port in ports)
    assert {key.name for key in entries.renderer.unheld()} == set(by_name[20:])
    assert set(entries.renderer.unheld().values()) == {
        "left out: the map frontends has room for 60 entries"
    }

    gone = {port.key: None for port in ports if port.key.name in by_name[:20]}
    entries.update(TableChanges(Family.IPV4, service_ports=gone))
    assert not entries.renderer.unheld()


def test_a_shared_list_takes_its_room_once():
    ports = [service_port(Family.IPV4, number, range(1, 41)) for number in range(1, 20)]
    entries = Entries(Family.IPV4, {**SIZES, "chunks": 4})
    entries.update(table(Family.IPV4, *ports).everything())
    assert not entries.renderer.unheld()
    other = service_port(Family.IPV4, 20, range(1, 18))
    entries.update(TableChanges(Family.IPV4, service_ports={other.key: other}))
    assert entries.renderer.unheld().keys() == {other.key}


def test_what_the_kernel_refused_is_left_out_until_it_is_tried_again():
    first, second = (service_port(Family.IPV4, number, [number]) for number in (1, 2))
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, first, second).everything())
    image = dict(entries.image)

    (frontend,) = (
        key for key in image if "frontend 10.96.0.2:80" in entries.renderer.describe(key)
    )
    entries.renderer.refuse({frontend: "no memory"})
    entries.update(TableChanges(Family.IPV4))
    assert entries.renderer.unheld() == {second.key: "left out: no memory"}
    assert entries.renderer.owners(entries.image) == {first.key}
    entries.update(TableChanges(Family.IPV4, service_ports={second.key: second}))
    assert entries.renderer.owners(entries.image) == {first.key}, "until it is tried again"

    entries.renderer.reopen()
    entries.update(TableChanges(Family.IPV4))
    assert not entries.renderer.unheld()
    assert entries.image == image


def test_a_wildcard_that_was_refused_is_left_out_alone():
    entry = service_port(Family.IPV4, 1, [1])
    entries = Entries(Family.IPV4)
    entries.update(table(Family.IPV4, entry).everything())
    image = dict(entries.image)
    (wildcard,) = (key for key in image if entries.renderer.describe(key).startswith("other ports"))

    entries.renderer.refuse({wildcard: "no memory"})
    entries.update(TableChanges(Family.IPV4))
    assert image.keys() - entries.image.keys() == {wildcard}
    reason = "other ports of 10.96.0.1 are not refused: no memory"
    assert entries.renderer.unheld() == {entry.key: reason}
    entries.renderer.reopen()
    entries.update(TableChanges(Family.IPV4))
    assert entries.image == image


@examples(30)
@given(st.sampled_from(Family), SETTINGS, CLUSTERS)
def test_every_entry_has_a_description_of_its_own_and_the_right_owners(family, settings, cluster):
    compiler = Compiler(settings, [family])
    compiler.apply(cluster)
    entries = Entries(family)
    entries.update(compiler.tables[family].everything())
    descriptions = [entries.renderer.describe(key) for key in entries.image]
    assert len(set(descriptions)) == len(descriptions)
    assert all(text.isprintable() and len(text) > 8 for text in descriptions)

    for key, entry in compiler.tables[family].service_ports.items():
        alone = Entries(family)
        only = TableChanges(family, compiler.tables[family].rules, {key: entry})
        alone.update(only)
        own = {each for each in alone.image if alone.renderer.owners([each])}
        assert all(key in entries.renderer.owners([each]) for each in own)


def test_local_pods_are_told_to_who_knows_devices():
    settings = Settings(
        HERE, detect_local=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cbr0"
    )
    compiler = Compiler(settings, [Family.IPV4])
    entries = Entries(Family.IPV4)
    assert isinstance(entries.renderer.local_pods, Undetected)
    compiler.apply(listed(a_service(ports=[a_port()]), a_slice("10.1.0.1")))
    entries.update(compiler.tables[Family.IPV4].everything())
    assert entries.renderer.local_pods == FromInterface("cbr0")
