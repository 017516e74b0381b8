"""What happens in the worker thread: everything that blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kproxy.backend import BackendError
from kproxy.core.table import TableChanges
from kproxy.run.reconcile import Applied, Reconciler


@dataclass(frozen=True, slots=True)
class Job:
    """What to do for one family. `changes` None means to ask for foreign writes only."""

    changes: TableChanges | None
    look: bool  # read everything, even if nothing is in doubt


@dataclass(frozen=True, slots=True)
class Polled:
    """Nothing was written. `disturbed` says that others may have written."""

    disturbed: bool


@dataclass(frozen=True, slots=True)
class Written:
    """The kernel holds what was asked. `leftovers` went wrong around it and must be done again.

    `disturbed` says that others may have written before, so that it still has to be read.
    """

    applied: Applied
    disturbed: bool
    leftovers: tuple[BackendError, ...]
    stale_flows: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel refused, and may hold half of what was asked."""

    error: BackendError


Outcome = Polled | Written | Refused


class Worker:
    """Does the jobs of one family, one at a time."""

    def __init__(self, reconciler: Reconciler, after_first_commit: Callable[[], None]) -> None:
        self._reconciler = reconciler
        self._after_first_commit = after_first_commit
        self._first_done = False

    def run(self, job: Job) -> Outcome:
        """Do a job. What the kernel refuses is part of the outcome; only bugs are raised."""
        # Asked before every write: a write moves the marks by which foreign ones are recognised.
        disturbed = not job.look and self._disturbed()
        if job.changes is None:
            return Polled(disturbed)
        try:
            if job.look:
                self._reconciler.forget()
            applied = self._reconciler.apply(job.changes)
        except BackendError as error:
            return Refused(error)
        stale_flows, leftovers = self._clear_up()
        return Written(applied, disturbed, leftovers, stale_flows)

    def _disturbed(self) -> bool:
        try:
            return self._reconciler.disturbed()
        except BackendError:
            return True  # not knowing is a doubt, and the full read that follows reports an error

    def _clear_up(self) -> tuple[int, tuple[BackendError, ...]]:
        """Do what follows a write; nothing here may undo or fail the write itself."""
        leftovers = []
        stale_flows = 0
        try:
            stale_flows = self._reconciler.forget_stale_flows()
        except BackendError as error:
            leftovers.append(error)
        if not self._first_done:
            try:
                self._after_first_commit()
                self._first_done = True
            except BackendError as error:
                leftovers.append(error)
        return stale_flows, tuple(leftovers)
