"""The loop: when the kernel is written, and that in the end it holds what was asked."""

import asyncio
import dataclasses
import functools
import itertools
import logging
from collections import Counter

import pytest

from kproxy.core.addresses import Family
from kproxy.core.flows import Flow
from kproxy.core.objects import Endpoint
from kproxy.core.store import Upserted
from kproxy.run.loop.agent import Hooks
from kproxy.run.loop.settings import LoopSettings
from tests.support.memory import Call
from tests.support.tables import api_slices, as_udp, listed, listed_udp, moved
from tests.unit.run.scenario import SETTINGS, WORK_S, Timed, now, running
from tests.unit.run.virtual import run

V4, V6 = Family


def in_virtual_time(test):
    """Run a coroutine test on a loop whose time costs nothing."""

    @functools.wraps(test)
    def sync(**fixtures):
        run(functools.partial(test, **fixtures))

    return sync


@in_virtual_time
async def test_nothing_is_touched_before_both_lists_are_there():
    async with running() as it:
        services, slices = listed(1)
        it.source.push([services], moved(1, 2))
        await asyncio.sleep(100)
        assert not any(backend.calls for backend in it.backends.values())
        it.source.push([slices])
        await asyncio.sleep(3 * WORK_S)
        assert it.all_true()


@in_virtual_time
async def test_an_empty_cluster_clears_what_an_earlier_run_left():
    async with running() as it:
        it.kernels[V4].put("kproxy/target/old", b"")
        it.source.push(listed())
        await asyncio.sleep(3 * WORK_S)
        assert it.all_true()


@in_virtual_time
async def test_the_first_change_after_quiet_is_written_at_once():
    async with running() as it:
        it.source.push(listed(1))
        await asyncio.sleep(10.1)  # between two polls for drift
        before = now()
        it.source.push(moved(1, 2))
        await asyncio.sleep(3 * WORK_S)
        for backend in it.backends.values():
            assert backend.commits[-1] == pytest.approx(before + WORK_S)


@in_virtual_time
async def test_changes_twice_a_second_for_an_hour_are_paced_and_none_waits_long():
    async with running() as it:
        it.source.push(listed(1, 2, 3))
        for version in range(2 * 3600):
            it.source.push(moved(version % 3 + 1, version))
            await asyncio.sleep(0.5)
            behind_since = it.status(V4).behind_since
            longest = SETTINGS.min_interval_s + 6 * WORK_S
            assert behind_since is None or now() - behind_since <= longest
        await asyncio.sleep(3)
        assert it.all_true()
        for backend in it.backends.values():
            pauses = [b - WORK_S - a for a, b in itertools.pairwise(backend.commits)]
            assert min(pauses) >= SETTINGS.min_interval_s - 1e-6
            assert len(pauses) > 3600 / (SETTINGS.min_interval_s + 5 * WORK_S)


def flapping(serving):
    """The slice of an IPv4 Service, in which an endpoint that is not ready starts or stops serving.

    In the table only what decides on stale flows differs: nothing has to be written.
    """
    both, _ = api_slices(1, 0)
    idle = Endpoint("10.1.9.9", "other-node", False, serving, True, (), ())
    return [Upserted(as_udp(dataclasses.replace(both, endpoints=(*both.endpoints, idle))))]


@in_virtual_time
async def test_changes_that_write_nothing_are_paced_too():
    taken = Counter()
    hooks = Hooks(began=lambda family, job: taken.update([family] if job.takes else []))
    async with running(hooks=hooks) as it:
        it.source.push(listed_udp(1), flapping(True))
        await asyncio.sleep(5)
        commits, searches = len(it.backends[V4].commits), it.backends[V4].calls[Call.FLOWS]
        taken.clear()
        for number in range(500):
            it.source.push(flapping(number % 2))
            await asyncio.sleep(0.02)
        assert len(it.backends[V4].commits) == commits
        assert 5 < taken[V4] <= 10
        assert it.backends[V4].calls[Call.FLOWS] - searches <= taken[V4]


@in_virtual_time
async def test_a_change_that_writes_nothing_delays_the_next_by_the_interval_at_most():
    async with running() as it:
        it.source.push(listed_udp(1), flapping(True))
        await asyncio.sleep(10.1)
        it.source.push(flapping(False))
        await asyncio.sleep(WORK_S)
        before = now()
        it.source.push([Upserted(as_udp(each)) for each in api_slices(1, 2)])
        await asyncio.sleep(5)
        written_at = it.backends[V4].commits[-1]
        assert written_at <= before + SETTINGS.min_interval_s + 2 * WORK_S + 1e-6


@pytest.mark.parametrize("min_interval_s", [0, 1])
def test_changes_that_come_faster_than_jobs_end_do_not_keep_the_other_family_waiting(
    min_interval_s,
):
    async def scene():
        settings = LoopSettings(min_interval_s=min_interval_s, sync_period_s=30)
        async with running(work_s=0.02, settings=settings) as it:
            it.source.push(listed_udp(1), flapping(True))
            await asyncio.sleep(5)
            for number in range(1000):
                it.source.push(flapping(number % 2))
                if number == 100:
                    it.source.push([Upserted(as_udp(api_slices(1, 2)[1]))])
                await asyncio.sleep(0.015)
                behind_since = it.status(V6).behind_since
                assert behind_since is None or now() - behind_since <= 0.1

    run(scene)


@in_virtual_time
async def test_repairs_without_end_do_not_keep_changes_waiting():
    settings = LoopSettings(min_interval_s=10, sync_period_s=30)
    async with running(settings=settings) as it:
        it.source.push(listed(1))
        await asyncio.sleep(20)
        it.source.push(moved(1, 2))
        await asyncio.sleep(5)
        it.source.push(moved(1, 3))
        for _ in range(40):
            it.kernels[V4].flush("kproxy/target/")
            await asyncio.sleep(0.5)
            behind_since = it.status(V4).behind_since
            assert behind_since is None or now() - behind_since <= 10


@in_virtual_time
async def test_a_burst_is_written_in_a_few_commits():
    async with running() as it:
        it.source.push(listed(*range(100)))
        await asyncio.sleep(10)
        it.source.push(*(moved(n % 100, n) for n in range(1000)))
        await asyncio.sleep(10)
        assert it.all_true()
        assert [len(backend.commits) for backend in it.backends.values()] == [3, 3]


@in_virtual_time
async def test_a_refused_family_backs_off_alone_and_comes_back(caplog):
    caplog.set_level(logging.INFO)
    refusals = 8
    async with running(faults={V4: {Call.COMMIT: [None] + [0] * refusals}}) as it:
        it.source.push(listed(1))
        await asyncio.sleep(10)
        for version in range(1, 200):
            it.source.push(moved(1, version))
            await asyncio.sleep(1)
            waited = it.status(V6).behind_since
            assert waited is None or now() - waited <= SETTINGS.min_interval_s + 6 * WORK_S
        await asyncio.sleep(5)
        assert it.all_true()
        attempts = it.backends[V4].commits[1 : refusals + 2]
        pauses = [b - WORK_S - a for a, b in itertools.pairwise(attempts)]
        expected = [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert pauses == pytest.approx(expected, abs=2 * WORK_S)
        assert it.status(V4).failures == 0
    said = [record.message for record in caplog.records if "IPv4" in record.message]
    assert [f"({n} in a row)" in line for n, line in zip((1, 2, 4, 8), said[1:], strict=False)]
    assert sum("refused (" in line for line in said) == 4
    assert sum("works again after 8 refusals" in line for line in said) == 1


@in_virtual_time
async def test_a_family_that_never_works_does_not_stop_the_other_nor_readiness():
    announced = []
    hooks = Hooks(ready=lambda statuses: announced.append({s.family: s for s in statuses}))
    faults = {V6: {Call.OBSERVE: [0] * 1000}}
    async with running(faults=faults, hooks=hooks) as it:
        it.source.push(listed(1))
        await asyncio.sleep(1)
        assert len(announced) == 1
        assert announced[0][V4].error == ""
        assert "refused by the script" in announced[0][V6].error
        await asyncio.sleep(600)
        assert len(announced) == 1
        assert it.is_true(V4)
        assert it.status(V6).failures > 20
        assert not it.status(V6).healthy(now(), patience_s=60)
        assert it.status(V4).healthy(now(), patience_s=60)


@pytest.mark.parametrize("quiet_s", [0.0, 0.4, 1.0, 2.7, 29.7])
def test_drift_is_repaired_within_five_seconds(quiet_s, caplog):
    async def scene():
        async with running() as it:
            it.source.push(listed(*range(20)))
            await asyncio.sleep(3)
            for _ in range(4):
                await asyncio.sleep(quiet_s)
                it.kernels[V4].flush("kproxy/target/")
                assert not it.is_true(V4)
                await asyncio.sleep(5)
                assert it.all_true()

    run(scene)
    assert "repaired" in caplog.text
    assert " more" in caplog.text


@in_virtual_time
async def test_a_neighbour_that_never_stops_writing_causes_few_reads():
    async with running() as it:
        it.source.push(listed(1))
        await asyncio.sleep(3)
        before = len(it.backends[V4].reads)
        for number in range(600):
            it.kernels[V4].put("chain/docker", str(number).encode())
            await asyncio.sleep(0.5)
        assert 300 / 5 < len(it.backends[V4].reads) - before <= 300 / SETTINGS.look_spacing_s + 1


class Blind(Timed):
    """Never notices that somebody else wrote."""

    def disturbed(self):
        return False


@in_virtual_time
async def test_the_audit_repairs_what_nobody_noticed():
    async with running(kind=Blind) as it:
        it.source.push(listed(1))
        await asyncio.sleep(3)
        it.kernels[V4].flush("kproxy/")
        await asyncio.sleep(SETTINGS.sync_period_s)
        assert it.all_true()


@in_virtual_time
async def test_not_knowing_whether_others_wrote_is_a_doubt():
    faults = {V4: {Call.DISTURBED: [None] * 5 + [0]}}
    async with running(faults=faults) as it:
        it.source.push(listed(1))
        await asyncio.sleep(20)
        assert len(it.backends[V4].reads) == 2
        assert len(it.backends[V6].reads) == 1


@in_virtual_time
async def test_a_foreign_write_before_our_own_is_still_seen_after_it():
    class Forgetful(Timed):
        """Cannot tell foreign writes from before its own commit, as a counter could not."""

        def commit(self, changes):
            super().commit(changes)
            self._seen = self._kernel.writes

    async with running(kind=Forgetful) as it:
        it.source.push(listed(1, 2))
        await asyncio.sleep(10.1)
        it.kernels[V4].flush("kproxy/target/10.1.0.0")
        it.source.push([moved(2, 7)[0]])
        await asyncio.sleep(5)
        assert it.all_true()


@in_virtual_time
async def test_stale_flows_that_stay_do_not_fail_the_family_and_are_tried_again(caplog):
    faults = {V4: {Call.FLOWS: [None] + [0] * 5}}
    async with running(faults=faults) as it:
        it.source.push(listed_udp(1))
        await asyncio.sleep(10)
        it.kernels[V4].flows.add(
            Flow("10.9.0.1", 4000, "10.96.0.1", 80, "10.1.0.0", 8080, "10.9.0.1", 4000, 0)
        )
        it.source.push([Upserted(as_udp(each)) for each in api_slices(1, 2)])
        await asyncio.sleep(1)
        assert it.is_true(V4)
        assert it.kernels[V4].flows
        assert it.status(V4).failures == 0
        await asyncio.sleep(40)
        assert not it.kernels[V4].flows
    assert "the rules are in place, but" in caplog.text
