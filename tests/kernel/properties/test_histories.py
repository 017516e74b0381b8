"""The kernel's state is what the last objects say, whatever way led there."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind
from kproxy.core.store import Replaced, Store, Upserted
from kproxy.ports.data_path import Backend
from kproxy.run.loop.reconcile import Reconciler
from tests.support.contract import tend
from tests.support.core.universe import CHANGES, CLUSTERS, SETTINGS, batches
from tests.support.effort import examples
from tests.support.net.namespace import Namespace
from tests.support.packets.data_paths import DATA_PATHS

# A failure is made small for up to 300 s before it is shown.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(420)]

FAMILIES = st.sampled_from(Family)


RULES = [name for name in DATA_PATHS if name.startswith("iptables")]
# How pods are joined does not matter here, as there are none.
PROGRAMS = [name for name in DATA_PATHS if name not in RULES and not name.endswith("-bridge")]


class Machine:
    """A kernel of its own that follows objects, as one process after the other does."""

    def __init__(self, data_path: str, family: Family, options) -> None:
        self._options = options
        self.family = family
        self.namespace = Namespace("machine")
        self.backend: Backend | None = None
        with self.namespace.entered():
            self._data_path = DATA_PATHS[data_path].on()

    def restart(self) -> None:
        """Forget everything but what the kernel holds."""
        with self.namespace.entered():
            if self.backend is not None:
                self.backend.close()
            self.backend = self._data_path.backend(self.family)
        self.reconciler = Reconciler(self.backend, lambda: ())
        self.compiler = Compiler(self._options, [self.family])

    def follow(self, changes) -> int:
        """Take a batch of changes in; return how many kernel objects were written."""
        written = 0
        with self.namespace.entered():
            for changed in self.compiler.apply(changes).values():
                written += self.reconciler.apply(changed).written
        return written

    def state(self) -> list[str]:
        """Return what is in the kernel once the data path has looked after itself."""
        with self.namespace.entered():
            tend(self.backend)
            return self._data_path.state(self.family)

    def image(self):
        """Return what the data path reads back."""
        with self.namespace.entered():
            return self.backend.observe()

    def close(self) -> None:
        if self.backend is not None:
            self.backend.close()
        self._data_path.close()
        self.namespace.close()


@contextmanager
def machines(data_path, family, options, count):
    with ExitStack() as ends:
        made = [Machine(data_path, family, options) for _ in range(count)]
        for machine in made:
            ends.callback(machine.close)
        for machine in made:
            machine.restart()
        yield made


def listed(store):
    return [Replaced(kind, tuple(store.all(kind))) for kind in Kind]


def the_way_does_not_show(data_path, data, family, options, cluster, changes):
    """In any order, coalesced in any way, and with restarts in between."""
    store = Store()
    for change in [*cluster, *changes]:
        store.apply(change)
    objects = [Upserted(each) for kind in Kind for each in store.all(kind)]
    with machines(data_path, family, options, 3) as (fresh, travelled, gathered):
        fresh.follow(listed(store))

        so_far = Store()
        for batch in data.draw(batches([*cluster, *changes])):
            travelled.follow(batch)
            for change in batch:
                so_far.apply(change)
            if travelled.compiler.ready and data.draw(st.booleans()):
                travelled.restart()
                assert travelled.follow(listed(so_far)) == 0
        gathered.follow([Replaced(kind, ()) for kind in Kind])
        for batch in data.draw(batches(data.draw(st.permutations(objects)))):
            gathered.follow(batch)

        assert travelled.state() == fresh.state()
        assert gathered.state() == fresh.state()
        assert travelled.image() == gathered.image() == fresh.image()


@pytest.mark.parametrize("data_path", RULES)
@examples(30)
@given(st.data(), FAMILIES, SETTINGS, CLUSTERS, CHANGES)
def test_the_way_does_not_show_in_rules(data_path, data, family, options, cluster, changes):
    the_way_does_not_show(data_path, data, family, options, cluster, changes)


@pytest.mark.parametrize("data_path", PROGRAMS)
@examples(3)  # a process that starts does more than with rules
@given(st.data(), FAMILIES, SETTINGS, CLUSTERS, CHANGES)
def test_the_way_does_not_show_in_maps(data_path, data, family, options, cluster, changes):
    the_way_does_not_show(data_path, data, family, options, cluster, changes)


def twice_is_once_and_there_and_back_is_the_same(data_path, family, options, here, there):
    with machines(data_path, family, options, 1) as (machine,):
        machine.follow(here)
        before = machine.state()
        with machine.namespace.entered():
            assert machine.reconciler.audit().written == 0
        machine.follow(there)
        machine.follow(here)
        assert machine.state() == before
        machine.restart()
        assert machine.follow(here) == 0


@pytest.mark.parametrize("data_path", RULES)
@examples(30)
@given(FAMILIES, SETTINGS, CLUSTERS, CLUSTERS)
def test_twice_is_once_and_there_and_back_is_the_same_in_rules(
    data_path, family, options, here, there
):
    twice_is_once_and_there_and_back_is_the_same(data_path, family, options, here, there)


@pytest.mark.parametrize("data_path", PROGRAMS)
@examples(5)  # a process that starts does more than with rules
@given(FAMILIES, SETTINGS, CLUSTERS, CLUSTERS)
def test_twice_is_once_and_there_and_back_is_the_same_in_maps(
    data_path, family, options, here, there
):
    twice_is_once_and_there_and_back_is_the_same(data_path, family, options, here, there)
