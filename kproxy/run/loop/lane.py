"""What the event loop knows of one family: what waits, when it is due, how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges
from kproxy.run.loop.pace import Pace
from kproxy.run.loop.pending import Pending
from kproxy.run.loop.reconcile import Step
from kproxy.run.loop.report import Report
from kproxy.run.loop.settings import LoopSettings
from kproxy.run.loop.status import FamilyStatus
from kproxy.run.loop.tending import Tending
from kproxy.run.loop.worker import Job, NotTended, Outcome, Polled, Refused, Tended, Worker, Written


class Lane:
    """One family's way from compiled changes to jobs for its worker.

    It lives in the event loop; only `worker` is used in the family's thread. A job is made by
    `next_job`, and its outcome is told to `finished` before the next one is made. While nothing
    else `is_due` the data path may be tended, which is told by `tending` and `tended`. `woken` is
    set when something may be due sooner than `next_at` said.
    """

    def __init__(
        self, family: Family, worker: Worker, settings: LoopSettings, random: Callable[[], float]
    ) -> None:
        self.family = family
        self.worker = worker
        self.report = Report(family)
        self.status = FamilyStatus(family)
        self.woken = asyncio.Event()
        self.settled = False  # a first write was tried, whatever came of it
        self._pending = Pending(family)
        self._pace = Pace(settings, random)
        self._tending = Tending(random, self.woken.set)
        self._waiting_since: float | None = None  # the oldest change that no job took yet

    def add(self, changes: TableChanges, now: float) -> None:
        """Queue a change; even an empty one asks for a write."""
        self._pending.add(changes)
        self._pace.queued()
        if self._waiting_since is None:
            self._waiting_since = now
        behind_since = now if self.status.behind_since is None else self.status.behind_since
        self.status = replace(self.status, queued_at=now, behind_since=behind_since)
        self.woken.set()

    def next_at(self) -> float:
        """Return when something is due, infinity if nothing will be."""
        return min(self._pace.next_at(), self._tending.next_at())

    def is_due(self, now: float) -> bool:
        """Say whether there is a job, which goes before tending."""
        return self._pace.next_at() <= now

    def next_job(self, now: float) -> Job:
        """Return what is due now; ask only if something is."""
        due = self._pace.due(now)
        if due.write:
            return Job(self.take(), look=due.look, takes=True, retry=due.retry)
        changes = TableChanges(self.family) if due.look else None
        return Job(changes, look=due.look, takes=False)

    def take(self) -> TableChanges:
        """Return all that waits; it counts as being written from now on."""
        self._pace.started()
        self._waiting_since = None
        return self._pending.take()

    def finished(self, job: Job, outcome: Outcome, *, started: float, now: float) -> None:
        """Learn how the last job ended."""
        match outcome:
            case Polled():
                self._pace.polled(now, disturbed=outcome.disturbed)
            case Written():
                if job.takes:
                    self._pace.wrote(started, now)
                self._pace.unheld(now, something=bool(outcome.unheld), tried=job.retry)
                self._written(outcome, started, now)
            case Refused():
                self._refused(outcome, now)

    def tending(self) -> None:
        """Note that the data path is being tended."""
        self._tending.begins()

    def tended(self, outcome: Tended | NotTended, now: float) -> None:
        """Learn how tending went."""
        self._tending.ended(outcome, now)
        self.report.tended(outcome)

    def close(self) -> None:
        """Watch nothing any more."""
        self._tending.close()

    def _written(self, outcome: Written, started: float, now: float) -> None:
        self.settled = True
        self._pace.worked()
        if outcome.applied.observed:
            self._pace.looked(started, now, wrote=bool(outcome.applied.written))
        self._pace.polled(now, disturbed=outcome.disturbed)
        self._pace.left_over(now, something=bool(outcome.leftovers))
        self._tending.in_force(now)
        before = self.status.unheld
        self.status = replace(
            self.status,
            applied_at=now,
            behind_since=self._waiting_since,
            failures=0,
            error="",
            unheld=outcome.unheld,
        )
        self.report.written(outcome, now - started)
        self.report.unheld(before, outcome.unheld)

    def _refused(self, outcome: Refused, now: float) -> None:
        self.settled = True
        self._pace.refused(now)
        behind_since = self.status.behind_since
        if behind_since is None and outcome.step is not Step.READ:  # it looked, and found a lack
            behind_since = now
        self.status = replace(
            self.status,
            behind_since=behind_since,
            failures=self._pace.failures,
            error=str(outcome.error),
        )
        self.report.refused(outcome, self._pace.next_at() - now)
