"""Edits of a table by others: noticed within seconds, and no change waits for that."""

import dataclasses

import msgspec
import pytest

from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges, Via, Vip
from tests.support.ebpf.entries import image_of
from tests.support.ebpf.fake_maps import FakeNode
from tests.support.tables import between, node_rules, service_port, some_tables

EDITS = {
    "altered": lambda entries: entries.update({next(iter(entries)): b"?" * 48}),
    "removed": lambda entries: entries.popitem(),
    "added": lambda entries: entries.update({b"?" * 8: b"?" * 48}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_entry_that_somebody_edits_is_noticed_and_repaired(edit):
    node = FakeNode()
    wanted = some_tables(Family.IPV4)[1]
    node.reconciler.apply(wanted.everything())
    assert not node.disturbed()

    EDITS[edit](node.maps["frontends"].entries)
    assert node.disturbed()
    (repaired,) = node.reconciler.audit().repaired
    assert repaired.startswith(("frontend ", "nodePort ", "other ports "))
    assert not node.disturbed()
    assert node.image() == image_of(wanted)


def test_a_map_that_should_have_changed_is_compared_again():
    """Also where it reads as it did before: somebody undid what was written."""
    node, (first, second) = FakeNode(), some_tables(Family.IPV4)[1:3]
    node.reconciler.apply(first.everything())
    before = dict(node.maps["frontends"].entries)
    assert not node.disturbed()
    node.reconciler.apply(between(first, second))
    node.maps["frontends"].entries = before
    assert node.disturbed()


def crowd(count):
    """So many service ports with an entry in two maps."""
    for n in range(count):
        entry = service_port(Family.IPV4, 1, [n % 250 + 1], name=f"web-{n}")
        where = Vip(Via.EXTERNAL_IP, f"203.{n >> 8}.113.{n & 255}", 80)
        target = msgspec.structs.replace(entry.targets[0], port=n + 1)
        yield dataclasses.replace(entry, frontends=(where,), targets=(target,))


def reads_of(node, *names):
    """Return a list that grows by a name whenever that map is read."""
    read = []
    for of in names:
        each = node.maps[of]
        original = each.raw_parts
        each.raw_parts = lambda at_once, of=of, o=original: read.append(of) or o(at_once)
    return read


def test_a_change_waits_for_no_comparison():
    node, (first, second) = FakeNode(), some_tables(Family.IPV4)[1:3]
    node.reconciler.apply(first.everything())
    read = reads_of(node, *node.maps)
    node.now += 3600
    assert not node.reconciler.disturbed()
    node.reconciler.apply(between(first, second))
    assert read == []
    node.tables.tend()
    assert "frontends" in read


def test_many_entries_are_compared_within_seconds_however_often_it_is_asked():
    node = FakeNode()
    ports = {entry.key: entry for entry in crowd(15_000)}
    node.reconciler.apply(TableChanges(Family.IPV4, node_rules(Family.IPV4), ports))
    read = reads_of(node, "frontends", "chunks")
    for _ in range(400):
        node.now += 0.01
        node.tables.tend()
        assert not node.reconciler.disturbed()
    assert set(read) == {"frontends", "chunks"}
    assert len(read) <= 4
    node.maps["chunks"].entries.popitem()
    for _ in range(400):
        node.now += 0.01
        node.tables.tend()
        if node.reconciler.disturbed():
            break
    else:
        pytest.fail("an entry was removed and nobody noticed")
