"""What is asked at each scrape, because somebody else keeps it anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.table import ForwardingTable, Use
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.run.loop.status import FamilyStatus

_FAMILY = ("ip_family",)
_SERVICE = itemgetter(0, 1)  # namespace and name of a ServicePortKey


@dataclass(frozen=True, slots=True)
class Readers:
    """Where to ask; all of it is asked in the event loop, at each scrape.

    - `probes`: how often "healthz" and "livez" gave each status code.
    - `sync_period_s`: as in LoopSettings.
    - `clock` is the one of FamilyStatus, the event loop's.
    """

    compiler: Compiler
    statuses: Callable[[], Iterable[FamilyStatus]]
    source: Callable[[], Iterable[SourceStatus]]
    probes: Callable[[], Mapping[tuple[str, int], int]]
    sync_period_s: float
    clock: Callable[[], float] = time.monotonic


class StateCollector:
    """Tells the state of the tables, the families, the source and the health server.

    And syncPeriod, which says how old the last sync of a family may be.
    """

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without asking anybody: their names are what registering needs."""
        empty = (*_tables({}), *_families((), 0.0), *_sources(()))
        return (*empty, _conflicts(0), *_probes({}), _sync_period(0.0))

    def collect(self) -> Iterator[Metric]:
        """Ask everybody."""
        readers = self._readers
        yield from _tables(readers.compiler.tables)
        yield _conflicts(len(readers.compiler.conflicts()))
        yield from _families(readers.statuses(), readers.clock())
        yield from _sources(readers.source())
        yield from _probes(readers.probes())
        yield _sync_period(readers.sync_period_s)


class _Size:
    """What has to be counted in a table: anew each time, which spares every change the effort."""

    def __init__(self, table: ForwardingTable) -> None:
        self.services = len(set(map(_SERVICE, table.service_ports)))
        self.endpoints = self.internal_drops = self.external_drops = 0
        drop = Use.DROP  # looked up 20,000 times, it would cost 2 ms
        for entry in table.service_ports.values():
            self.endpoints += len(entry.targets)
            if entry.local_targets:
                self.endpoints += len(set(entry.local_targets).difference(entry.targets))
            if entry.internal is drop:
                self.internal_drops += 1
            if entry.external is drop:
                self.external_drops += 1


def _tables(tables: Mapping[Family, ForwardingTable]) -> tuple[Metric, ...]:
    """Return how big the tables are, and how many service ports policy Local leaves without."""
    unserved = GaugeMetricFamily(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Service ports with a Local traffic policy that have endpoints, but none on this node.",
        labels=("traffic_policy", "ip_family"),
    )
    services = _gauge("kproxy_services", "Services with at least one service port.", _FAMILY)
    ports = _gauge("kproxy_service_ports", "Service ports in the forwarding table.", _FAMILY)
    endpoints = _gauge(
        "kproxy_endpoints",
        "Endpoints that new connections may be sent to, summed over the service ports.",
        _FAMILY,
    )
    frontends = _gauge(
        "kproxy_frontends", "Addresses with a port, and NodePorts, that are served.", _FAMILY
    )
    for family, table in tables.items():
        name = family.value
        size = _Size(table)
        unserved.add_metric(("internal", name), size.internal_drops)
        unserved.add_metric(("external", name), size.external_drops)
        services.add_metric((name,), size.services)
        ports.add_metric((name,), len(table.service_ports))
        endpoints.add_metric((name,), size.endpoints)
        frontends.add_metric((name,), len(table.vips) + len(table.node_ports))
    return unserved, services, ports, endpoints, frontends


def _families(statuses: Iterable[FamilyStatus], now: float) -> tuple[Metric, ...]:
    behind = _gauge(
        "kproxy_behind_seconds",
        "How long the oldest change has waited that the kernel lacks, 0 if it lacks none.",
        _FAMILY,
    )
    failures = _gauge(
        "kproxy_refusals_in_a_row",
        "How often the kernel has refused since it last took all.",
        _FAMILY,
    )
    unheld = _gauge(
        "kproxy_unheld_service_ports",
        "Service ports that are not in force as they are asked for, while all others are.",
        _FAMILY,
    )
    for status in statuses:
        unheld.add_metric((status.family.value,), len(status.unheld))
        since = now if status.behind_since is None else status.behind_since
        behind.add_metric((status.family.value,), now - since)
        failures.add_metric((status.family.value,), status.failures)
    return behind, failures, unheld


def _sources(statuses: Iterable[SourceStatus]) -> tuple[Metric, ...]:
    state = _gauge(
        "kproxy_source_state", "1 for the state that the source of a kind is in.", ("kind", "state")
    )
    since = _gauge("kproxy_source_state_timestamp_seconds", "When that state began.", ("kind",))
    refused = _gauge(
        "kproxy_source_refused_objects", "Objects left out because they are invalid.", ("kind",)
    )
    lists = CounterMetricFamily(
        "kproxy_source_lists_total", "Complete lists taken from the source.", labels=("kind",)
    )
    reconnects = CounterMetricFamily(
        "kproxy_source_reconnects_total", "Streams that had to be opened again.", labels=("kind",)
    )
    for status in statuses:
        kind = status.kind.value
        for each in SourceState:
            state.add_metric((kind, each.value), each is status.state)
        since.add_metric((kind,), status.since)
        refused.add_metric((kind,), status.refused)
        lists.add_metric((kind,), status.lists)
        reconnects.add_metric((kind,), status.reconnects)
    return state, since, refused, lists, reconnects


def _conflicts(count: int) -> Metric:
    return GaugeMetricFamily(
        "kproxy_conflicts",
        "Frontends that a second service port claims in vain, and ports of this node that a "
        "Service takes from whoever listens there.",
        value=count,
    )


def _probes(answers: Mapping[tuple[str, int], int]) -> Iterator[Metric]:
    for probe in ("healthz", "livez"):
        metric = CounterMetricFamily(
            f"kubeproxy_proxy_{probe}_total",
            f"Answers of /{probe} by status code.",
            labels=("code",),
        )
        codes = {200, 503} | {code for name, code in answers if name == probe}
        for code in sorted(codes):
            metric.add_metric((str(code),), answers.get((probe, code), 0))
        yield metric


def _sync_period(seconds: float) -> Metric:
    return GaugeMetricFamily(
        "kproxy_sync_period_seconds", "The mode's syncPeriod, as configured.", value=seconds
    )


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)
