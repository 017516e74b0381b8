"""A data path is tended in small steps, when it asks for it, and never before a change."""

import asyncio
import logging

import pytest

from kproxy.core.addresses import Family
from tests.support.memory import Bell, Call, Kernel
from tests.support.tables import listed, moved
from tests.unit.run.scenario import WORK_S, Timed, now, running, scenario
from tests.unit.run.virtual import run

V4, V6 = Family


def kernels(bell=None):
    return {V4: Kernel(bell), V6: Kernel()}


def test_nothing_is_tended_before_the_rules_are_in_force():
    async def scene():
        async with running(faults={V4: {Call.COMMIT: [0] * 4}}) as it:
            it.source.push(listed()[:1])
            await asyncio.sleep(10)
            it.source.push(listed(1))
            await asyncio.sleep(2)
            assert it.status(V4).failures
            assert not it.backends[V4].calls[Call.TEND]
            assert it.backends[V6].calls[Call.TEND]
            await asyncio.sleep(20)
            assert not it.status(V4).failures
            assert it.backends[V4].calls[Call.TEND]

    run(scene)


def test_it_is_tended_each_second_though_it_has_no_descriptor():
    async def scene():
        async with running() as it:
            it.source.push(listed(1))
            await asyncio.sleep(60)
            assert 60 / (1 + 2 * WORK_S) <= it.backends[V4].calls[Call.TEND] <= 60

    run(scene)


def test_a_readable_descriptor_is_answered_at_once():
    async def scene():
        with Bell() as bell:
            async with running(kernels=kernels(bell)) as it:
                it.source.push(listed(1))
                await asyncio.sleep(10.1)
                before = it.backends[V4].calls[Call.TEND]
                it.kernels[V4].expire(1)
                await asyncio.sleep(0.01)
                assert it.kernels[V4].expired == 0
                assert it.backends[V4].calls[Call.TEND] == before + 1
                it.kernels[V4].expire(1)
                await asyncio.sleep(0.01)
                assert it.kernels[V4].expired == 0, "it is watched again"

    run(scene)


def test_what_takes_many_steps_goes_on_until_there_is_no_more():
    async def scene():
        with Bell() as bell:
            async with running(kernels=kernels(bell)) as it:
                it.source.push(listed(1))
                await asyncio.sleep(10.1)
                before = it.backends[V4].calls[Call.TEND]
                it.kernels[V4].expire(1000)
                await asyncio.sleep(0.01)
                assert it.kernels[V4].expired == 0
                assert it.backends[V4].calls[Call.TEND] == before + 1000

    run(scene)


class Sweeping(Timed):
    """Notes what was left to tend at each commit."""

    def __init__(self, family, kernel, faults=None):
        super().__init__(family, kernel, faults)
        self.left = []

    def commit(self, changes):
        self.left.append(self._kernel.expired)
        super().commit(changes)

    def tend(self, budget_s):
        asyncio.get_running_loop().advance(budget_s)
        return super().tend(budget_s)


def test_a_change_does_not_wait_for_the_end_of_a_sweep():
    async def scene():
        async with running(kind=Sweeping) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10.1)
            it.kernels[V4].expire(10_000)
            await asyncio.sleep(2)
            before = now()
            it.source.push(moved(1, 2))
            await asyncio.sleep(1)
            backend = it.backends[V4]
            assert backend.left[-1] > 9_000
            assert backend.commits[-1] <= before + 2 * WORK_S + 0.1
            assert it.status(V4).behind_since is None
            await asyncio.sleep(200)
            assert it.kernels[V4].expired == 0

    run(scene)


def test_what_cannot_be_tended_is_said_now_and_then_and_tried_ever_more_rarely(caplog):
    caplog.set_level(logging.INFO)

    async def scene():
        with Bell() as bell:
            faults = {V4: {Call.TEND: [None] * 3 + [0] * 6}}
            async with running(kernels=kernels(bell), faults=faults) as it:
                it.source.push(listed(1))
                await asyncio.sleep(2.5)
                it.kernels[V4].expire(1)
                await asyncio.sleep(20)
                assert 3 < it.backends[V4].calls[Call.TEND] < 3 + 7
                assert not it.status(V4).failures
                await asyncio.sleep(40)
                assert it.kernels[V4].expired == 0

    run(scene)
    said = [record.message for record in caplog.records if "IPv4" in record.message]
    assert sum("the rules are in place, but: tend: refused by the script" in x for x in said) == 3
    assert sum("done after 6 failures" in line for line in said) == 1


def test_every_data_path_is_closed_once_however_the_loop_ends():
    async def scene():
        async with running() as it:
            it.source.push(listed(1))
            await asyncio.sleep(5)
            assert not it.backends[V4].calls[Call.CLOSE]
        assert all(backend.calls[Call.CLOSE] == 1 for backend in it.backends.values())

        it = scenario()
        it.source.fail(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await it.agent.run(it.source.batches())
        assert all(backend.calls[Call.CLOSE] == 1 for backend in it.backends.values())

        it = scenario()
        it.source.push(listed(1))
        await it.agent.once(it.source.batches())
        assert all(backend.calls[Call.CLOSE] == 1 for backend in it.backends.values())

    run(scene)
