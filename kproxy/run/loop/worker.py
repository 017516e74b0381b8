"""What happens in the thread of a family: everything that blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import Backend, BackendError, Sample
from kproxy.run.loop.reconcile import Applied, Reconciler, Step


@dataclass(frozen=True, slots=True)
class Job:
    """What to do for one family. `changes` None means to ask for foreign writes only."""

    changes: TableChanges | None
    look: bool  # read everything, even if nothing is in doubt
    takes: bool  # `changes` are all that waited
    retry: bool = False  # also what the kernel does not hold as it is wished


@dataclass(frozen=True, slots=True)
class Polled:
    """Nothing was written. `disturbed` says that others may have written."""

    disturbed: bool
    counted: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class StaleFlows:
    """A search for stale flows: how many were removed, and how long it took."""

    removed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Written:
    """The kernel holds what was asked. `leftovers` went wrong around it and must be done again.

    `disturbed` says that others may have written before, so that it still has to be read.
    `stale_flows` is None where no flow could be stale, or the search failed. `unheld` names the
    service ports that are not in force as they are wished, and why.
    """

    applied: Applied
    disturbed: bool
    leftovers: tuple[BackendError, ...]
    stale_flows: StaleFlows | None
    counted: tuple[Sample, ...]
    unheld: Mapping[ServicePortKey, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel refused `step`, and may hold half of what was asked."""

    error: BackendError
    step: Step


Outcome = Polled | Written | Refused


@dataclass(frozen=True, slots=True)
class Tended:
    """The data path was tended. A readable `descriptor` asks for it again, `more` does at once."""

    more: bool
    descriptor: int | None


@dataclass(frozen=True, slots=True)
class NotTended:
    """The data path could not be tended. Its rules are in force all the same."""

    error: BackendError


class Worker:
    """Does the jobs of one family, one at a time."""

    def __init__(
        self,
        backend: Backend,
        *,
        local_addresses: Callable[[], Collection[str]],
        after_first_commit: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._reconciler = Reconciler(backend, local_addresses)
        self._after_first_commit = after_first_commit
        self._clock = clock
        self._first_done = False

    def run(self, job: Job) -> Outcome:
        """Do a job. What the kernel refuses is part of the outcome; only bugs are raised."""
        # Asked before every write: a write moves the marks by which foreign ones are recognised.
        disturbed = not job.look and self._disturbed()
        if job.changes is None:
            return Polled(disturbed, tuple(self._backend.counters()))
        try:
            if job.look:
                self._reconciler.forget()
            applied = self._reconciler.apply(job.changes, retry=job.retry)
        except BackendError as error:
            return Refused(error, self._reconciler.step)
        stale_flows, leftovers = self._clear_up()
        return Written(
            applied,
            disturbed,
            leftovers,
            stale_flows,
            tuple(self._backend.counters()),
            self._reconciler.unheld,
        )

    def tend(self, budget_s: float) -> Tended | NotTended:
        """Let the data path look after itself for a while; only bugs are raised."""
        try:
            return Tended(self._backend.tend(budget_s), self._backend.fileno())
        except BackendError as error:
            return NotTended(error)

    def close(self) -> None:
        """Let go of what the data path holds in this process."""
        self._backend.close()

    def _disturbed(self) -> bool:
        try:
            return self._reconciler.disturbed()
        except BackendError:
            return True  # not knowing is a doubt, and the full read that follows reports an error

    def _clear_up(self) -> tuple[StaleFlows | None, tuple[BackendError, ...]]:
        """Do what follows a write; nothing here may undo or fail the write itself."""
        leftovers = []
        try:
            self._reconciler.settle()
        except BackendError as error:
            leftovers.append(error)
        stale_flows = None
        if self._reconciler.may_have_stale_flows:
            started = self._clock()
            try:
                removed = self._reconciler.forget_stale_flows()
                stale_flows = StaleFlows(removed, self._clock() - started)
            except BackendError as error:
                leftovers.append(error)
        if not self._first_done:
            try:
                self._after_first_commit()
                self._first_done = True
            except BackendError as error:
                leftovers.append(error)
        return stale_flows, tuple(leftovers)
