"""All metrics of a process, and the page that shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric

from kproxy.core.addresses import Family
from kproxy.core.store import Difference
from kproxy.core.table import TableChanges
from kproxy.run.loop.agent import Ended
from kproxy.run.loop.worker import Job, Refused
from kproxy.run.metrics.data_path import DataPathCollector
from kproxy.run.metrics.identity import GateState, IdentityCollector
from kproxy.run.metrics.instruments import Shown
from kproxy.run.metrics.requests import RequestMetrics
from kproxy.run.metrics.state import Readers, StateCollector
from kproxy.run.metrics.sync import SyncMetrics

# What kube-proxy answers, whatever a client would accept.
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

_UPSTREAM = ("kubeproxy_", "kubernetes_", "rest_client_")


class Metrics:
    """Is fed by the loop's hooks (`differed`, `took`, `began`, `done`) and by `request`.

    Everything but `request` is called in the event loop. `watch` is called once, when there is
    somebody to ask. A registry of its own keeps one process's metrics out of another's test.
    """

    def __init__(
        self,
        mode: str,
        families: Iterable[Family],
        features: Mapping[str, GateState],
        *,
        shown: Shown,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(IdentityCollector(mode, features))
        self._sync = SyncMetrics(self._registry, shown, families, wall_clock)
        self._requests = RequestMetrics(self._registry)
        self._data_path = DataPathCollector()
        self._registry.register(self._data_path)
        ProcessCollector(registry=self._registry)

    def watch(self, readers: Readers) -> None:
        """Ask these at each scrape, too."""
        self._registry.register(StateCollector(readers))

    def expose(self) -> tuple[str, bytes]:
        """Return the content type and the page."""
        return _CONTENT_TYPE, generate_latest(_Page(self._registry))

    def differed(self, difference: Difference) -> None:
        """Hook of the loop."""
        self._sync.differed(difference)

    def took(self, changes: Mapping[Family, TableChanges], seconds: float) -> None:
        """Hook of the loop."""
        self._sync.took(changes, seconds)

    def began(self, family: Family, job: Job) -> None:
        """Hook of the loop."""
        self._sync.began(family, job)

    def done(self, ended: Ended) -> None:
        """Hook of the loop."""
        self._sync.done(ended)
        if not isinstance(ended.outcome, Refused):
            self._data_path.counted(ended.family, ended.outcome.counted)

    def request(self, verb: str, code: int | str, host: str, seconds: float | None) -> None:
        """Note a request to the API server, in any thread."""
        self._requests.request(verb, code, host, seconds)


class _Page:
    """A registry as kube-proxy would show it.

    prometheus_client (0.26) adds the time at which each series began, unless the whole process
    does without; shows metrics that have no series yet; and writes bounds as Python does, where a
    query by `le="1"` knows Go's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield what is shown."""
        shown = 0
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            if not metric.samples:
                continue
            for sample in metric.samples if metric.type == "histogram" else ():
                bound = sample.labels.get("le", "")
                if bound.endswith(".0"):
                    sample.labels["le"] = bound[:-2]
            shown += metric.name.startswith(_UPSTREAM)
            yield metric
        yield from _of_the_framework(shown)


def _of_the_framework(shown: int) -> Iterator[Metric]:
    """Return what Kubernetes' metrics library tells of itself; nothing of ours can be hidden."""
    registered = CounterMetricFamily(
        "registered_metrics_total",
        "Metrics under names that Kubernetes gave them.",
        labels=("stability_level", "deprecated_version"),
    )
    registered.add_metric(("ALPHA", ""), shown)
    yield registered
    for name, text in (
        ("disabled_metrics_total", "Metrics that were turned off."),
        ("hidden_metrics_total", "Metrics that are not shown because they are deprecated."),
    ):
        yield CounterMetricFamily(name, text, value=0)
