"""What happens to changes on their way into the kernel, as the loop's hooks tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry

from kproxy.core.addresses import Family
from kproxy.core.objects import EndpointSlice, ObjectKey, Service
from kproxy.core.store import Difference
from kproxy.core.table import TableChanges
from kproxy.run.loop.agent import Ended
from kproxy.run.loop.reconcile import Step
from kproxy.run.loop.worker import Job, Polled, Refused, Written
from kproxy.run.metrics.backlog import Backlog, Trigger
from kproxy.run.metrics.instruments import (
    DOING,
    ChangeInstruments,
    ResultInstruments,
    Shown,
    SyncInstruments,
)


class SyncMetrics:
    """Turns hooks into numbers. `wall_clock` returns seconds since the epoch."""

    def __init__(
        self,
        registry: CollectorRegistry,
        shown: Shown,
        families: Iterable[Family],
        wall_clock: Callable[[], float],
    ) -> None:
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._services = self._slices = 0  # that differ in the batch which is being compiled
        self._triggers: list[Trigger] = []
        self._backlogs = {family: Backlog() for family in families}
        self._changes = ChangeInstruments(registry)
        self._syncs = SyncInstruments(registry, shown)
        self._results = ResultInstruments(registry)
        backlogs = self._backlogs.values()
        self._changes.services_pending.set_function(lambda: max(b.services for b in backlogs))
        self._changes.slices_pending.set_function(lambda: max(b.slices for b in backlogs))
        for family in self._backlogs:
            self._syncs.start(family)
            self._results.start(family)

    def differed(self, difference: Difference) -> None:
        """Count a change of an object, and note when an EndpointSlice says that it happened.

        A slice that is gone still carries the time of an earlier change, so that does not count;
        nor does one from before we started, which somebody else had to make true.
        """
        new = difference.new
        subject = difference.old if new is None else new
        if isinstance(subject, Service):
            self._services += 1
        elif isinstance(subject, EndpointSlice):
            self._slices += 1
        if isinstance(new, EndpointSlice) and new.service is not None and new.family is not None:
            at = new.triggered_at
            if at is not None and at > self._started_at:
                self._triggers.append(Trigger(new.family, new.service, at))

    def took(self, changes: Mapping[Family, TableChanges], seconds: float) -> None:
        """Learn what a batch changed in the tables. A trigger that changed nothing is dropped."""
        services, slices, triggers = self._services, self._slices, self._triggers
        self._services = self._slices = 0
        self._triggers = []
        self._changes.compile_duration.observe(seconds)
        self._changes.services.inc(services)
        self._changes.slices.inc(slices)
        for family, change in changes.items():
            touched = _services_in(change) if triggers else frozenset()
            at = [t.at for t in triggers if t.family is family and t.service in touched]
            self._backlogs[family].add(services, slices, at)
            self._results.queued_at.labels(family.value).set(self._wall_clock())

    def began(self, family: Family, job: Job) -> None:
        """Learn that a job takes along what waits for a family."""
        if job.takes:
            self._backlogs[family].taken()

    def done(self, ended: Ended) -> None:
        """Learn how a job went."""
        match ended.outcome:
            case Polled():
                return
            case Written(applied=applied):
                self._took(ended, full=applied.observed)
                self._written(ended.family, ended.outcome)
            case Refused(step=step):
                self._took(ended, full=step is not Step.WRITE_CHANGE)
                self._refused(ended.family.value, step)

    def _took(self, ended: Ended, *, full: bool) -> None:
        family = ended.family.value
        self._syncs.duration.labels(family).observe(ended.seconds)
        which = self._syncs.full if full else self._syncs.partial
        which.labels(family).observe(ended.seconds)
        if ended.job.look:
            self._syncs.audit.labels(family).observe(ended.seconds)

    def _written(self, family: Family, outcome: Written) -> None:
        """Note that the kernel holds all that was taken, and did before stale flows were sought."""
        results, name = self._results, family.value
        now = self._wall_clock()
        results.written_at.labels(name).set(now)
        results.written.labels(name).inc(outcome.applied.written)
        results.repaired.labels(name).inc(len(outcome.applied.repaired))
        if outcome.stale_flows is not None:
            now -= outcome.stale_flows.seconds
            results.flow_search.labels(name).observe(outcome.stale_flows.seconds)
            results.flows_removed.labels(name).inc(outcome.stale_flows.removed)
        for at in self._backlogs[family].written():
            results.programming.labels(name).observe(max(0.0, now - at))

    def _refused(self, family: str, step: Step) -> None:
        """Note that the kernel refused; what could not even be read was no write."""
        self._syncs.refusals.labels(family, DOING[step]).inc()
        if step is Step.READ:
            return
        self._syncs.restore_failures.labels(family).inc()
        self._syncs.nftables_failures.labels(family).inc()
        if step is Step.WRITE_CHANGE:
            self._syncs.partial_restore_failures.labels(family).inc()


def _services_in(changes: TableChanges) -> frozenset[ObjectKey]:
    return frozenset(key.service for key in changes.service_ports)
