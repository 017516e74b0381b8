"""The times of one family, without a loop."""

import collections
import itertools
import math
import random

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import TableChanges
from kproxy.run.loop.lane import Lane
from kproxy.run.loop.pace import Due, Pace, Retry
from kproxy.run.loop.pending import Pending
from kproxy.run.loop.reconcile import Applied
from kproxy.run.loop.settings import LoopSettings
from kproxy.run.loop.worker import Worker, Written
from tests.support.tables import between, service_port, some_tables, table

SETTINGS = LoopSettings(min_interval_s=1, sync_period_s=30)


def pace():
    return Pace(SETTINGS, lambda: 0.0)


def settled(at):
    """A pace whose first write, with a full read, ended at `at`."""
    made = pace()
    made.queued()
    made.started()
    made.looked(at, at, wrote=True)
    made.polled(at, disturbed=False)
    made.wrote(at, at)
    made.worked()
    return made


def test_nothing_is_due_before_something_is_queued():
    made = pace()
    assert made.next_at() == math.inf
    assert made.due(1e9) == Due(write=False, look=False)


def test_the_interval_counts_from_the_end_of_the_last_write():
    made = settled(at=100)
    made.queued()
    assert made.due(100.99) == Due(write=False, look=False)
    assert made.due(101) == Due(write=True, look=False)


def written_one_after_the_other(made, cost_s, changes=1):
    """Let a pace without a set interval write twice with no idle time; return its pause."""
    now = 100.0
    for _ in range(2):
        for _ in range(changes):
            made.queued()
        now = max(now, made.next_at())
        made.started()
        made.wrote(now, now + cost_s)
        now += cost_s
    made.queued()
    return made.next_at() - now


def unset():
    return Pace(LoopSettings(min_interval_s=None, sync_period_s=30), lambda: 0.0)


@pytest.mark.parametrize(
    ("cost_s", "pause_s"),
    [(0.0001, 0.01), (0.0025, 0.01), (0.015, 0.06), (0.15, 0.6), (0.25, 1), (0.41, 1), (9, 1)],
)
def test_where_nobody_set_an_interval_writing_takes_a_fifth_of_the_time_at_most(cost_s, pause_s):
    assert written_one_after_the_other(unset(), cost_s) == pytest.approx(pause_s)


@pytest.mark.parametrize("interval_s", [0.001, 1, 5])
@pytest.mark.parametrize("cost_s", [0.001, 0.41])
def test_an_interval_that_somebody_set_does_not_depend_on_what_a_write_cost(interval_s, cost_s):
    made = Pace(LoopSettings(interval_s, sync_period_s=30), lambda: 0.0)
    assert written_one_after_the_other(made, cost_s, changes=50) == pytest.approx(interval_s)


@pytest.mark.parametrize("cost_s", [0.0001, 0.005, 0.015, 0.15, 0.4])
def test_a_thousand_changes_in_ten_seconds_share_few_writes(cost_s):
    waits, writes = followed([0.01] * 1000, cost_s)
    assert len(writes) <= (16 if cost_s < 0.1 else 10)
    assert max(waits) <= 1 + cost_s + 1e-9


def test_five_changes_a_second_do_not_crowd():
    waits, _ = followed([0.2] * 100, cost_s=0.01)
    assert waits == pytest.approx([0] * 100)


def test_a_crowd_is_forgotten_within_seconds():
    waits, _ = followed([0.001] * 100 + [5, 0.1, 0.1], cost_s=0.01)
    assert waits[-3:] == pytest.approx([0, 0, 0])


def followed(gaps_s, cost_s):
    """Write changes that come after these gaps; return how long each waited, and each write."""
    made, now = unset(), 100.0
    arrivals = collections.deque(now + after_s for after_s in itertools.accumulate(gaps_s))
    waits, writes, queued = [], [], []

    def come(until):
        while arrivals and arrivals[0] <= until:
            queued.append(arrivals.popleft())
            made.queued()

    while arrivals or queued:
        due_at = made.next_at()
        if arrivals and arrivals[0] <= due_at:
            now = max(now, arrivals[0])
            come(now)
            continue
        now = max(now, due_at)
        waits += [now - since for since in queued]
        queued.clear()
        made.started()
        writes.append((now, now + cost_s))
        now += cost_s
        come(now)
        made.wrote(*writes[-1])
    return waits, writes


def test_a_single_change_is_written_at_once():
    waits, _ = followed([5, 1.5, 30, 2], cost_s=0.41)
    assert waits == pytest.approx([0, 0, 0, 0])


def test_a_second_change_soon_after_a_first_one_does_not_wait_either():
    waits, _ = followed([60, 0.45, 0.45], cost_s=0.41)
    assert waits == pytest.approx([0, 0, 1 - 0.03 - 0.04], abs=1e-3), "but a third one"


@pytest.mark.parametrize("cost_s", [0.004, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_changes_at_random_are_written_in_a_fifth_of_the_time_at_most(cost_s, seed):
    chance = random.Random(seed)
    _, writes = followed([chance.expovariate(3) for _ in range(500)], cost_s)
    pauses = [began - ended for (_, ended), (began, _) in itertools.pairwise(writes)]
    assert min(pauses) >= 0.01 - 1e-9
    for before, after in itertools.pairwise(pauses):
        assert before + after >= 4 * cost_s - 1e-9


@pytest.mark.parametrize("cost_s", [0.015, 0.15])
def test_half_of_the_changes_that_come_now_and_then_do_not_wait_at_all(cost_s):
    chance = random.Random(1)
    waits, _ = followed([chance.uniform(0.2, 1.5) for _ in range(500)], cost_s)
    assert sorted(waits)[len(waits) // 2] <= 0.01


def test_new_changes_do_not_shorten_a_pause_after_a_refusal():
    made = settled(at=100)
    made.refused(100)
    made.refused(100.5)
    made.queued()
    assert made.next_at() == 101.5
    assert made.due(101.4) == Due(write=False, look=False)
    assert made.due(101.5) == Due(write=True, look=False)


@pytest.mark.parametrize("sync_period_s", [5, 30, 3600])
def test_a_kernel_that_refuses_for_long_is_tried_at_least_every_30_seconds(sync_period_s):
    made = Pace(LoopSettings(1, sync_period_s), lambda: 1.0)
    for _ in range(20):
        made.refused(100)
    made.queued()
    assert made.next_at() == 100 + min(30, sync_period_s)


def test_leftovers_are_tried_again_at_least_every_30_seconds():
    made = Pace(LoopSettings(1, 3600), lambda: 1.0)
    for _ in range(20):
        made.left_over(100, something=True)
    assert made.due(129.9) == Due(write=False, look=False)
    assert made.due(130) == Due(write=True, look=False)


def test_a_doubt_leads_to_a_read_at_once_but_not_to_one_after_the_other():
    made = settled(at=100)
    made.polled(110, disturbed=True)
    made.polled(110, disturbed=False)
    assert made.due(110) == Due(write=False, look=True)
    made.looked(110, 110.5, wrote=False)
    made.polled(111, disturbed=True)
    assert not made.due(113.4).look
    assert made.due(113.5).look


def test_reading_never_takes_more_than_half_of_the_time():
    made = settled(at=100)
    made.looked(110, 120, wrote=False)
    made.polled(121, disturbed=True)
    assert not made.due(129.9).look
    assert made.due(130).look


def test_what_waits_is_written_with_a_read_that_is_due_anyway():
    lane = Lane(
        Family.IPV4,
        Worker(None, local_addresses=None, after_first_commit=None, clock=None),
        SETTINGS,
        lambda: 0.0,
    )
    lane.add(some_tables(Family.IPV4)[1].everything(), 100)
    found = Written(Applied(0, (), True), False, (), None, ())
    lane.finished(lane.next_job(100), found, started=100, now=100)
    lane.add(some_tables(Family.IPV4)[1].everything(), 130)
    job = lane.next_job(130)
    assert job.look
    assert job.takes
    assert job.changes.service_ports
    lane.finished(job, found, started=130, now=130)
    audit = lane.next_job(160)
    assert audit.look
    assert not audit.takes


def test_the_audit_comes_a_sync_period_after_the_last_full_read():
    made = settled(at=100)
    made.polled(129, disturbed=False)
    assert not made.due(129.9).look
    assert made.due(130).look


def test_audits_take_two_percent_of_the_time_at_most():
    made = settled(at=100)
    made.looked(130, 131, wrote=False)
    made.polled(500, disturbed=False)
    assert not made.due(180.9).look
    assert made.due(181).look
    made.looked(181, 191, wrote=True)
    assert not made.due(240.9).look
    assert made.due(241).look, "what was written does not count as reading"


def reads_of_a_noisy_neighbour(made, look_s, until):
    """Let a neighbour write without end; return when reads began that found nothing of ours."""
    now, reads = 110.0, []
    while now < until:
        made.polled(now, disturbed=True)
        if made.due(now).look:
            reads.append(now)
            now += look_s
            made.looked(now - look_s, now, wrote=False)
        now += 0.1
    return reads


def test_a_neighbour_that_never_stops_writing_costs_five_percent_of_the_time_at_most():
    made = settled(at=100)
    spacing = [b - a for a, b in itertools.pairwise(reads_of_a_noisy_neighbour(made, 0.4, 200))]
    assert spacing[:2] == pytest.approx([3.5, 3.5], abs=0.2), "one that does so once costs nothing"
    assert spacing[3:] == pytest.approx([8] * len(spacing[3:]), abs=0.2)
    made.looked(200, 200.4, wrote=True)
    made.polled(201, disturbed=True)
    assert made.due(203.5).look, "there was something to repair: the next doubt is taken seriously"


def test_a_neighbour_that_never_stops_writing_delays_a_repair_by_ten_seconds_at_most():
    made = settled(at=100)
    reads = reads_of_a_noisy_neighbour(made, 3.0, 300)
    assert max(b - a for a, b in itertools.pairwise(reads)) == pytest.approx(10, abs=0.2)


def test_reads_that_take_no_time_are_not_delayed_by_a_neighbour():
    made = settled(at=100)
    reads = reads_of_a_noisy_neighbour(made, 0.02, 300)
    spacing = [b - a for a, b in itertools.pairwise(reads)]
    assert spacing == pytest.approx([3.5] * len(spacing), abs=0.2)


def test_audits_that_find_nothing_do_not_delay_a_repair():
    made = settled(at=100)
    for at in (200, 300, 400, 500):
        made.looked(at, at + 0.4, wrote=False)
    made.polled(501, disturbed=True)
    assert made.due(503.5).look


@pytest.mark.parametrize("seed", range(5))
def test_pauses_grow_to_the_cap_and_never_beyond(seed):
    backoff = Retry(30, random.Random(seed).random)
    pauses = []
    for _ in range(2000):
        backoff.failed(0)
        pauses.append(backoff.at)
    assert all(0.5 * 2**n <= pause <= 0.75 * 2**n for n, pause in enumerate(pauses[:5]))
    assert pauses[7:] == [30] * 1993
    assert pauses[:5] != [0.5, 1, 2, 4, 8], "no jitter"
    backoff.worked()
    assert backoff.at == math.inf
    backoff.failed(0)
    assert backoff.at < 1


@pytest.mark.parametrize("seed", range(10))
def test_pending_changes_add_up_to_the_same_as_then(seed):
    path = [None, *random.Random(seed).choices(some_tables(Family.IPV6), k=6)]
    changes = [between(old, new) for old, new in itertools.pairwise(path)]
    pending, joined = Pending(Family.IPV6), TableChanges(Family.IPV6)
    for each in changes:
        pending.add(each)
        joined = joined.then(each)
    assert pending.take() == joined
    assert pending.take() == TableChanges(Family.IPV6)


def test_what_was_taken_does_not_change_any_more():
    one = service_port(Family.IPV4, 1, [1])
    two = service_port(Family.IPV4, 2, [1], protocol=Protocol.UDP)
    pending = Pending(Family.IPV4)
    pending.add(table(Family.IPV4, one).everything())
    taken = pending.take()
    pending.add(table(Family.IPV4, two).everything())
    assert set(taken.service_ports) == {one.key}
