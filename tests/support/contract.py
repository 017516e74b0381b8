"""What every data path must keep to, the fake one and the real ones.

Subclass `BackendContract`, name the class `Test…`, and give it a fixture `rig`.
"""

import random
from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from kproxy.core.addresses import Family
from kproxy.core.image import diff
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import Backend, BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.unit.run.tables import between, some_tables


class Rig(Protocol):
    """A kernel of its own for one test, with foreign objects of every kind already in it."""

    family: Family

    def backend(self) -> Backend:
        """Return a new backend on the same kernel, as a process that was just started has."""

    def foreign(self) -> Hashable:
        """Return everything in the kernel that is not ours."""

    def meddle(self) -> None:
        """Remove or change some of our objects, as a stranger would; there are some."""

    def refusals(self) -> Iterable[AbstractContextManager[Backend]]:
        """Yield ways to be refused: a new backend whose next commit fails in the middle.

        Each at another point of the commit, the first before anything was written. Leaving the
        context lifts what makes it fail.
        """


class Follower:
    """Feeds tables to a reconciler by their differences."""

    def __init__(self, backend):
        self.reconciler = Reconciler(backend, lambda: ())
        self._table = None

    def apply(self, table):
        changes = between(self._table, table)
        self._table = table
        return self.reconciler.apply(changes)


def tend(backend):
    """Let a data path look after itself until there is no more to do."""
    while backend.tend(0.01):
        pass


def assert_holds(rig, table):
    """The kernel holds what the table says, and no more; and a restart finds nothing to do."""
    fresh = rig.backend()
    rendered = fresh.render(table.everything())
    wanted = {key: value for key, value in rendered.items() if value is not None}
    assert not diff(fresh.observe(), wanted)
    assert Follower(rig.backend()).apply(table).written == 0


def coalesced(path):
    """The changes along a path of tables, as one."""
    changes = TableChanges(path[0].family)
    for old, new in zip([None, *path], path, strict=False):
        changes = changes.then(between(old, new))
    return changes


class BackendContract:
    """The laws; each test gets a fresh kernel from `rig`."""

    def test_applying_twice_writes_nothing_the_second_time(self, rig):
        for table in some_tables(rig.family):
            follower = Follower(rig.backend())
            follower.apply(table)
            assert follower.apply(table).written == 0
            assert follower.reconciler.audit().written == 0

    def test_there_and_back_is_the_same_image(self, rig):
        _, here, *others = some_tables(rig.family)
        follower = Follower(rig.backend())
        follower.apply(here)
        before = rig.backend().observe()
        for there in others:
            follower.apply(there)
            follower.apply(here)
            assert rig.backend().observe() == before

    @pytest.mark.parametrize("seed", range(6))
    def test_only_the_last_table_matters(self, rig, seed):
        path = random.Random(seed).choices(some_tables(rig.family), k=5)
        follower = Follower(rig.backend())
        for table in path:
            follower.apply(table)
        assert_holds(rig, path[-1])

    @pytest.mark.parametrize("seed", range(6))
    def test_coalescing_does_not_show(self, rig, seed):
        path = random.Random(seed).choices(some_tables(rig.family), k=5)
        Reconciler(rig.backend(), lambda: ()).apply(coalesced(path))
        assert_holds(rig, path[-1])

    def test_a_restart_changes_only_what_differs(self, rig):
        _, here, there, *_ = some_tables(rig.family)
        follower = Follower(rig.backend())
        follower.apply(here)
        change = follower.apply(there).written
        follower.apply(here)
        assert Follower(rig.backend()).apply(here).written == 0
        assert Follower(rig.backend()).apply(there).written == change

    def test_a_commit_that_failed_half_way_is_finished_by_the_next_apply(self, rig):
        tables = some_tables(rig.family)
        for refusal in rig.refusals():
            Follower(rig.backend()).apply(tables[1])
            with refusal as backend:
                follower = Follower(backend)
                with pytest.raises(BackendError):
                    follower.apply(tables[5])
            follower.apply(tables[4])
            assert_holds(rig, tables[4])

    def test_a_commit_that_failed_half_way_is_finished_after_a_restart(self, rig):
        tables = some_tables(rig.family)
        for refusal in rig.refusals():
            Follower(rig.backend()).apply(tables[1])
            with refusal as backend, pytest.raises(BackendError):
                Follower(backend).apply(tables[5])
            Follower(rig.backend()).apply(tables[5])
            assert_holds(rig, tables[5])

    def test_meddling_is_noticed_and_repaired(self, rig):
        table = some_tables(rig.family)[5]
        backend = rig.backend()
        follower = Follower(backend)
        follower.apply(table)
        rig.meddle()
        assert backend.disturbed()
        assert follower.reconciler.audit().repaired
        assert_holds(rig, table)

    def test_our_own_writes_are_no_disturbance(self, rig):
        backend = rig.backend()
        follower = Follower(backend)
        for table in some_tables(rig.family):
            follower.apply(table)
            assert not backend.disturbed()

    def test_what_is_not_ours_stays_as_it_is(self, rig):
        before = rig.foreign()
        for table in some_tables(rig.family):
            Follower(rig.backend()).apply(table)
            assert rig.foreign() == before

    def test_what_is_counted_fits_its_metric_and_asking_changes_nothing(self, rig):
        backend = rig.backend()
        list(backend.counters())  # before anything was written, too
        Follower(backend).apply(some_tables(rig.family)[1])
        samples = list(backend.counters())
        assert samples
        assert len({(sample.metric, sample.labels) for sample in samples}) == len(samples)
        for metric, labels, value in samples:
            assert len(labels) == len(metric.labels)
            assert metric.name.endswith("_total") or not metric.total
            assert value >= 0
        assert list(backend.counters()) == samples
        assert not backend.disturbed()
