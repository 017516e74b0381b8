"""What every data path must keep to, the fake one and the real ones.

Subclass `BackendContract`, name the class `Test…`, and give it a fixture `rig`; and for each two
data paths that may meet in one kernel `PairContract`, with a fixture `pair`.
"""

import random
from collections.abc import Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import pytest

from kproxy.core.addresses import Family
from kproxy.core.image import diff
from kproxy.core.table import ServicePort, TableChanges
from kproxy.ports.data_path import Backend, BackendError
from kproxy.run.loop.reconcile import Reconciler
from kproxy.run.loop.threads import family_threads
from tests.support import tables as making
from tests.support.open_files import open_files, opened_since
from tests.support.tables import between, some_tables


class Rig(Protocol):
    """A kernel of its own for one test, with foreign objects of every kind already in it."""

    family: Family

    def both(self) -> Mapping[Family, Backend]:
        """Return new backends on the same kernel, as a process that was just started has."""

    def backend(self) -> Backend:
        """Return such a backend of `family`, of a process that serves it alone."""

    def foreign(self) -> Hashable:
        """Return everything in the kernel that is not ours."""

    def meddle(self) -> None:
        """Remove or change some of our objects, as a stranger would; there are some."""

    def refusals(self) -> Iterable[AbstractContextManager[Backend]]:
        """Yield ways to be refused: a new backend whose next commit fails in the middle.

        Each at another point of the commit, the first before anything was written. Leaving the
        context lifts what makes it fail.
        """

    def without_room(self) -> tuple[ServicePort, AbstractContextManager[object]]:
        """Return a service port for which the kernel has no room while one is in the context.

        It is in none of `some_tables`. With one endpoint and without affinity it has room.
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


def in_force(backend, wished):
    """Bring a table into force with all that follows a write; return who feeds further ones."""
    follower = Follower(backend)
    follower.apply(wished)
    follower.reconciler.settle()
    tend(backend)
    return follower


def tend(backend):
    """Let a data path look after itself until there is no more to do."""
    while backend.tend(0.01):
        pass


def assert_holds(rig, table):
    """The kernel holds what the table says, and no more; and a restart finds nothing to do."""
    fresh = rig.both()[table.family]
    rendered = fresh.render(table.everything())
    wanted = {key: value for key, value in rendered.items() if value is not None}
    assert not diff(fresh.observe(), wanted)
    assert Follower(rig.both()[table.family]).apply(table).written == 0


def coalesced(path):
    """The changes along a path of tables, as one."""
    changes = TableChanges(path[0].family)
    for old, new in zip([None, *path], path, strict=False):
        changes = changes.then(between(old, new))
    return changes


def with_port(old, port):
    """Return a table with one service port more, or with another one under its name."""
    return making.table(
        old.family, *(each for each in old.service_ports.values() if each.key != port.key), port
    )


def without_port(old, port):
    """Return a table without a service port, whose clusterIPs are known all the same."""
    new = making.table(old.family, *old.service_ports.values())
    new.apply(TableChanges(old.family, service_ports={port.key: None}))
    return new


def image_of(rig, wished):
    """Return what the kernel should hold of a table."""
    rendered = rig.backend().render(wished.everything())
    return {key: value for key, value in rendered.items() if value is not None}


def until_accepted(follower, wished):
    """Apply a table whose first try is refused: only going on with it finds out why."""
    with pytest.raises(BackendError):
        follower.apply(wished)
    follower.reconciler.apply(TableChanges(wished.family))


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
        tend(backend)
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

    def test_both_families_live_in_one_kernel_each_in_a_thread_of_its_own(self, rig):
        backends = rig.both()
        paths = {
            family: random.Random(str(family)).choices(some_tables(family), k=12)
            for family in backends
        }

        followers = {family: Follower(backend) for family, backend in backends.items()}

        def follow(family):
            for table in paths[family]:
                followers[family].apply(table)
                tend(backends[family])

        def look(family):
            repaired = followers[family].reconciler.audit().written
            return repaired, backends[family].disturbed()

        with family_threads(backends) as executors:
            for work, result in ((follow, None), (look, (0, False))):
                running = [executors[family].submit(work, family) for family in backends]
                assert [future.result() for future in running] == [result] * len(running)
        for path in paths.values():
            assert_holds(rig, path[-1])

    def test_every_object_is_described_in_one_line_of_its_own(self, rig):
        backend = rig.backend()
        follower = Follower(backend)
        described = {}
        for table in some_tables(rig.family):
            rendered = rig.backend().render(table.everything())
            follower.apply(table)
            for key in {*rendered, *backend.observe()}:
                described[key] = backend.describe(key)
        assert len(set(described.values())) == len(described)
        assert all(text.isprintable() and 0 < len(text) < 200 for text in described.values())

    def test_tending_ends_and_alters_nothing_that_is_wanted(self, rig):
        backend = rig.backend()
        follower = Follower(backend)
        before = rig.foreign()
        for table in some_tables(rig.family):
            follower.apply(table)
            tend(backend)
            assert not backend.disturbed()
            assert_holds(rig, table)
            assert rig.foreign() == before
        assert backend.fileno() is None or backend.fileno() >= 0
        assert not backend.tend(0.01)

    def test_closing_lets_go_of_all_descriptors_and_of_nothing_in_the_kernel(self, rig):
        table = some_tables(rig.family)[5]
        before = open_files()
        backend = rig.backend()
        Follower(backend).apply(table)
        backend.disturbed()
        list(backend.counters())
        tend(backend)
        backend.close()
        assert not opened_since(before)
        assert_holds(rig, table)

    def test_no_room_for_one_service_leaves_the_others_in_force(self, rig):
        port, room = rig.without_room()
        base = some_tables(rig.family)[1]
        wished = with_port(base, port)
        with room:
            follower = Follower(rig.backend())
            follower.apply(base)
            assert follower.reconciler.unheld == {}
            until_accepted(follower, wished)
            assert follower.reconciler.unheld.keys() == {port.key}
            assert all(follower.reconciler.unheld.values())
            assert rig.backend().observe() == image_of(rig, without_port(wished, port))

            moved = with_port(some_tables(rig.family)[2], port)
            assert follower.apply(moved).written, "the others go on"
            assert rig.backend().observe() == image_of(rig, without_port(moved, port))
            follower.reconciler.apply(TableChanges(rig.family), retry=True)
            assert follower.reconciler.unheld.keys() == {port.key}, "it was tried, in vain"
            assert rig.backend().observe() == image_of(rig, without_port(moved, port))
        follower.reconciler.apply(TableChanges(rig.family), retry=True)
        assert follower.reconciler.unheld == {}
        assert_holds(rig, moved)

    def test_no_room_for_one_of_all_services_at_the_first_write(self, rig):
        port, room = rig.without_room()
        table = with_port(some_tables(rig.family)[6], port)
        with room:
            follower = Follower(rig.backend())
            until_accepted(follower, table)
            assert follower.reconciler.unheld.keys() == {port.key}
            assert rig.backend().observe() == image_of(rig, without_port(table, port))
            # A restart has to find it again, and takes nothing out of the kernel for that.
            before = rig.backend().observe()
            again = Follower(rig.backend())
            until_accepted(again, table)
            assert again.reconciler.unheld.keys() == {port.key}
            assert rig.backend().observe() == before

    def test_what_the_kernel_refuses_of_a_service_leaves_it_as_it_was(self, rig):
        port, room = rig.without_room()
        modest = replace(port, targets=port.targets[:1], affinity_timeout_s=None)
        table = with_port(some_tables(rig.family)[1], modest)
        wished = with_port(table, port)
        follower = Follower(rig.backend())
        follower.apply(table)
        with room:
            until_accepted(follower, wished)
            assert follower.reconciler.unheld.keys() == {port.key}
            assert rig.backend().observe() == image_of(rig, table)
        follower.reconciler.apply(TableChanges(rig.family), retry=True)
        assert_holds(rig, wished)


class PairContract:
    """The laws of two data paths that work in one kernel at once; a test gets rigs of both."""

    def test_each_sees_its_own_objects_alone(self, pair):
        first, second = pair
        mine, other = some_tables(first.family)[5], some_tables(first.family)[1]
        in_force(first.backend(), mine)
        in_force(second.backend(), other)
        assert_holds(first, mine)
        assert_holds(second, other)

    def test_neither_disturbs_the_other(self, pair):
        backends = [rig.backend() for rig in pair]
        tables = some_tables(pair[0].family)
        followers = [in_force(backend, tables[5]) for backend in backends]
        for follower in followers:
            follower.reconciler.audit()  # what one does once, when it comes, the other may notice
        for table in tables[1:]:
            for follower, backend in zip(followers, backends, strict=True):
                assert not backend.disturbed()
                assert not follower.apply(table).observed
        for rig in pair:
            assert_holds(rig, tables[-1])

    def test_one_that_gives_everything_up_leaves_the_other_whole(self, pair):
        tables = some_tables(pair[0].family)
        for leaving, staying in (pair, pair[::-1]):
            backend = leaving.backend()
            follower = in_force(backend, tables[5])
            in_force(staying.backend(), tables[5])
            before = staying.foreign()
            follower.apply(tables[0])
            tend(backend)
            assert_holds(staying, tables[5])
            assert_holds(leaving, tables[0])
            assert staying.foreign() == before
