"""Start, stop and the end: what the loop says, whom it tells, and that no write is cut off."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.agent import Agent, Hooks, Host, SourceEnded
from kproxy.run.loop.reconcile import Applied
from tests.support.memory import Call, Kernel, Memory
from tests.support.tables import listed, listed_udp, moved
from tests.unit.run.scenario import SETTINGS, WORK_S, Source, Timed, now, running, scenario
from tests.unit.run.virtual import run

V4, V6 = Family


def refused(doing="removing leftovers"):
    raise BackendError(doing, "not today", transient=True)


def test_stop_finishes_the_write_in_flight_and_leaves_the_rules():
    async def scene():
        it = scenario(work_s=5)
        task = asyncio.create_task(it.agent.run(it.source.batches()))
        it.source.push(listed(1))
        await asyncio.sleep(2)
        it.source.push(moved(1, 2))
        await asyncio.sleep(1)
        it.agent.stop()
        await task
        assert now() == pytest.approx(1005)
        assert all(len(backend.commits) == 1 for backend in it.backends.values())
        assert all(it.kernels[family].objects for family in Family)

    run(scene)


def test_cancelling_twice_does_not_cut_a_write_off():
    async def scene():
        it = scenario(work_s=5)
        task = asyncio.create_task(it.agent.run(it.source.batches()))
        it.source.push(listed(1))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert it.is_true(V4)

    run(scene)


def test_stop_waits_for_a_real_thread():
    entered, go_on = threading.Event(), threading.Event()

    class Blocking(Memory):
        def commit(self, changes):
            entered.set()
            assert go_on.wait(timeout=60)
            super().commit(changes)

    async def scene(executor):
        kernel, source = Kernel(), Source()
        agent = Agent(
            Compiler(Settings(node_name="node"), [V4]),
            [Blocking(V4, kernel)],
            SETTINGS,
            host=Host({V4: executor}, lambda family: (), lambda: 0.0),
            hooks=Hooks(),
        )
        source.push(listed(1))
        task = asyncio.create_task(agent.run(source.batches()))
        await asyncio.to_thread(entered.wait, 60)
        agent.stop()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        assert not kernel.objects
        go_on.set()
        await task
        assert kernel.objects

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scene(executor))


def test_a_source_that_crashes_ends_the_loop_with_its_error():
    async def scene():
        it = scenario(work_s=5)
        task = asyncio.create_task(it.agent.run(it.source.batches()))
        it.source.push(listed(1))
        it.source.fail(ZeroDivisionError("a bug"))
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await task
        assert it.is_true(V4), "the write in flight was finished"

    run(scene)


def test_a_source_that_ends_is_an_error():
    async def scene():
        it = scenario()
        it.source.fail(StopAsyncIteration())
        with pytest.raises(SourceEnded):
            await it.agent.run(it.source.batches())
        it.source.push([listed(1)[0]])
        it.source.fail(StopAsyncIteration())
        with pytest.raises(SourceEnded):
            await it.agent.once(it.source.batches())

    run(scene)


def test_a_bug_in_a_data_path_is_not_taken_for_a_refusal():
    class Broken(Timed):
        def observe(self):
            raise KeyError("a bug")

    async def scene():
        it = scenario(kind=Broken)
        it.source.push(listed(1))
        with pytest.raises(KeyError, match="a bug"):
            await it.agent.run(it.source.batches())

    run(scene)


def test_a_kernel_that_does_not_answer_is_reported_ever_more_rarely(caplog):
    async def scene():
        async with running(work_s=1000) as it:
            it.source.push(listed(1))
            await asyncio.sleep(999)

    run(scene)
    said = [r.message for r in caplog.records if "IPv4: the kernel has not" in r.message]
    assert [line.split()[7] for line in said[:4]] == ["60", "180", "420", "900"]


def test_the_first_commit_of_each_family_is_told_once_even_if_nothing_had_to_be_written():
    told = []
    hooks = Hooks(first_commit=lambda family: told.append((family, now())))

    async def scene():
        async with running(hooks=hooks, faults={V4: {Call.COMMIT: [0]}}) as it:
            it.source.push(listed())
            await asyncio.sleep(5)
            it.source.push(moved(1, 1))
            await asyncio.sleep(100)

        again = scenario(hooks=hooks)
        again.source.push(listed())
        await again.agent.once(again.source.batches())

    run(scene)
    assert [family for family, _ in told] == [V6, V4, V4, V6]
    assert told[1][1] >= told[0][1] + 0.3, "the refused commit did not count"


def test_what_follows_the_first_commit_is_tried_until_it_works(caplog):
    told = []

    def first_commit(family):
        told.append(now())
        if len(told) < 5:
            refused()

    async def scene():
        async with running(hooks=Hooks(first_commit=first_commit)) as it:
            it.source.push(listed(1))
            await asyncio.sleep(60)
            assert it.all_true()
            assert all(not status.failures for status in it.agent.status())

    run(scene)
    assert len(told) == 6
    assert "removing leftovers: not today" in caplog.text


def test_kube_proxy_is_cleared_away_even_if_stale_flows_cannot_be():
    told = []

    async def scene():
        it = scenario(hooks=Hooks(first_commit=told.append), faults={V4: {Call.FLOWS: [0]}})
        it.source.push(listed_udp(1))
        await it.agent.once(it.source.batches())
        assert it.backends[V4].calls[Call.FLOWS] == 1

    run(scene)
    assert told == [V4, V6]


def test_ready_comes_once_and_after_every_family():
    announced = []
    hooks = Hooks(ready=lambda statuses: announced.append((now(), list(statuses))))

    async def scene():
        async with running(hooks=hooks) as it:
            it.source.push(listed(1))
            await asyncio.sleep(100)

    run(scene)
    [(when, statuses)] = announced
    assert when == pytest.approx(1000 + WORK_S)
    assert all(status.applied_at is not None and not status.error for status in statuses)


def test_compiled_changes_are_told_before_they_are_written():
    told = []

    async def scene():
        hooks = Hooks(compiled=lambda changes: told.append((set(changes), now())))
        async with running(hooks=hooks) as it:
            services, slices = listed(1)
            it.source.push([services], [slices], [slices])
            await asyncio.sleep(1)

    run(scene)
    assert told == [({V4, V6}, 1000)]


def test_status_follows_a_change_into_the_kernel():
    async def scene():
        async with running() as it:
            assert it.status(V4).queued_at is None
            it.source.push(listed(1))
            await asyncio.sleep(0.1)
            assert it.status(V4).behind_since == 1000
            await asyncio.sleep(0.15)
            assert it.status(V4).behind_since is None
            assert it.status(V4).applied_at == pytest.approx(1000 + WORK_S)
            it.source.push(moved(1, 2))
            await asyncio.sleep(0.1)
            it.source.push(moved(1, 3))
            await asyncio.sleep(0.1)
            status = it.status(V4)
            assert status.queued_at == pytest.approx(1000.35)
            assert status.behind_since == pytest.approx(1000.25)
            assert status.healthy(1001, patience_s=1)
            assert not status.healthy(1002, patience_s=1)


def test_a_change_that_comes_during_a_write_is_still_missing_after_it():
    async def scene():
        async with running() as it:
            it.source.push(listed(1))
            await asyncio.sleep(WORK_S / 2)
            it.source.push(moved(1, 2))
            await asyncio.sleep(WORK_S)
            assert it.status(V4).applied_at == pytest.approx(1000 + WORK_S)
            assert it.status(V4).behind_since == pytest.approx(1000 + WORK_S / 2)

    run(scene)


def test_a_kernel_that_cannot_be_read_lacks_no_change():
    async def scene():
        async with running(faults={V4: {Call.OBSERVE: [None] + [0] * 100}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(200)
            assert it.status(V4).failures
            assert it.status(V4).behind_since is None
            it.source.push(moved(1, 2))
            await asyncio.sleep(100)
            assert it.status(V4).behind_since == pytest.approx(1200)

    run(scene)


def test_a_kernel_that_refuses_a_repair_lacks_it():
    async def scene():
        async with running(faults={V4: {Call.COMMIT: [None] + [0] * 100}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.kernels[V4].flush("kproxy/target/")
            await asyncio.sleep(10)
            assert it.status(V4).behind_since is not None

    run(scene)


def test_once_says_for_each_family_how_it_went():
    async def scene():
        never = {Call.COMMIT: [0] * 100}
        it = scenario(faults={V4: {Call.COMMIT: [2, 5]}, V6: never})
        it.source.push(*([each] for each in listed(1)))
        outcome = await it.agent.once(it.source.batches())
        assert isinstance(outcome[V4], Applied)
        assert it.is_true(V4)
        assert isinstance(outcome[V6], BackendError)
        assert len(it.backends[V6].commits) == 4
        assert now() < 1010

    run(scene)


def test_once_repeats_what_cannot_work_to_find_out_what_it_is_and_no_more():
    class Stubborn(Timed):
        def commit(self, changes):
            self.commits.append(now())
            raise BackendError("writing", "no such table", transient=False)

    async def scene():
        it = scenario(kind=Stubborn)
        it.source.push(listed(1))
        outcome = await it.agent.once(it.source.batches())
        assert all(isinstance(each, BackendError) for each in outcome.values())
        assert all(len(backend.commits) == 3 for backend in it.backends.values())

    run(scene)


def test_a_restart_on_a_true_kernel_commits_nothing():
    async def scene():
        first = scenario()
        first.source.push(listed(1, 2))
        await first.agent.once(first.source.batches())
        second = scenario(kernels=first.kernels)
        second.source.push(listed(1, 2))
        await second.agent.once(second.source.batches())
        assert second.all_true()
        assert not any(backend.commits for backend in second.backends.values())

    run(scene)


def test_large_writes_are_said_and_small_ones_whispered(caplog):
    caplog.set_level(logging.DEBUG)

    async def scene():
        async with running() as it:
            it.source.push(listed(1))
            await asyncio.sleep(3)
            it.source.push(moved(1, 2))
            await asyncio.sleep(3)
            it.source.push(listed(*range(100)))
            await asyncio.sleep(3)

    run(scene)
    said = [r.levelname for r in caplog.records if r.message.startswith("IPv4: wrote")]
    assert said == ["INFO", "DEBUG", "INFO"]
