"""Each family has a thread of its own, and nobody waits for another."""

import asyncio
import threading

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from kproxy.run.loop.agent import Agent, Hooks, Host
from kproxy.run.loop.threads import family_threads
from tests.support.memory import Kernel, Memory
from tests.support.tables import listed, moved
from tests.unit.run.scenario import SETTINGS, WORK_S, Source, now, running, scenario
from tests.unit.run.virtual import run

V4, V6 = Family


@pytest.mark.parametrize("slow", Family, ids=lambda family: family.value)
def test_a_first_fill_that_takes_long_holds_up_nobody_else(slow):
    async def scene():
        (other,) = set(Family) - {slow}
        async with running(slow={slow: 1000}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10.1)
            for version in range(1, 50):
                it.source.push(moved(1, version))
                asked = now()
                await asyncio.sleep(2)
                assert asked < it.backends[other].commits[-1] <= asked + 3 * WORK_S
                assert it.status(other).behind_since is None
            assert it.status(slow).applied_at is None

    run(scene)


def test_once_writes_both_families_at_the_same_time():
    async def scene():
        it = scenario(slow={V4: 100, V6: 100})
        it.source.push(*([each] for each in listed(1)))
        await it.agent.once(it.source.batches())
        assert it.all_true()
        assert now() == pytest.approx(1100)

    run(scene)


class Located(Memory):
    """Notes in which thread each call runs."""

    def __init__(self, family, kernel, threads, together):
        super().__init__(family, kernel)
        self._threads = threads
        self._together = together

    def render(self, changes):
        self._note("render")
        return super().render(changes)

    def commit(self, changes):
        self._note("commit")
        self._together.wait(timeout=60)  # passed only if both families commit at the same time
        super().commit(changes)

    def tend(self, budget_s):
        self._note("tend")
        return super().tend(budget_s)

    def close(self):
        self._note("close")

    def _note(self, call):
        self._threads[self.family].append((call, threading.get_ident()))


def test_all_that_concerns_a_family_runs_in_one_thread_of_its_own():
    threads = {family: [] for family in Family}
    together = threading.Barrier(2)

    async def scene(executors):
        source = Source()
        agent = Agent(
            Compiler(Settings(node_name="node")),
            [Located(family, Kernel(), threads, together) for family in Family],
            SETTINGS,
            host=Host(executors, lambda family: (), lambda: 0.0),
            hooks=Hooks(ready=lambda statuses: agent.stop()),
        )
        source.push(listed(1))
        await agent.run(source.batches())

    with family_threads(Family) as executors:
        asyncio.run(scene(executors))
    places = [{thread for _, thread in calls} for calls in threads.values()]
    assert all(len(place) == 1 for place in places)
    assert len(set.union(*places, {threading.get_ident()})) == 3
    for calls in threads.values():
        names = [call for call, _ in calls]
        assert names[:2] == ["render", "commit"]
        assert names[-1] == "close"
