"""The metrics that the loop's hooks feed: names, labels, bounds.

Facts about kube-proxy's are from its pkg/proxy/metrics/metrics.go (1.37.1). Every series is there
from the start, so that the first event already shows as an increase.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kproxy.core.addresses import Family
from kproxy.run.loop.reconcile import Step
from kproxy.run.metrics.buckets import DURATION, PROGRAMMING, SHORT_DURATION

_FAMILY = ("ip_family",)
_SYNC = "kubeproxy_sync_proxy_rules"


@dataclass(frozen=True, slots=True)
class Shown:
    """Which of the metrics are shown that kube-proxy has in some of its modes only."""

    partial_syncs: bool
    iptables_failures: bool
    nftables_failures: bool


DOING = {Step.READ: "read", Step.WRITE_ALL: "write_all", Step.WRITE_CHANGE: "write_change"}
"""The label values of `kproxy_refusals_total`."""


class ChangeInstruments:
    """Changes of objects, and compiling them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.services = Counter(
            f"{_SYNC}_service_changes_total",
            "Services that were added, altered or removed.",
            registry=registry,
        )
        self.slices = Counter(
            f"{_SYNC}_endpoint_changes_total",
            "EndpointSlices that were added, altered or removed.",
            registry=registry,
        )
        self.services_pending = Gauge(
            f"{_SYNC}_service_changes_pending",
            "Changes of Services that the kernel lacks, in the family that lacks most.",
            registry=registry,
        )
        self.slices_pending = Gauge(
            f"{_SYNC}_endpoint_changes_pending",
            "Changes of EndpointSlices that the kernel lacks, in the family that lacks most.",
            registry=registry,
        )
        self.compile_duration = Histogram(
            "kproxy_compile_duration_seconds",
            "How long it takes to compile a batch of changes into the tables.",
            registry=registry,
            buckets=SHORT_DURATION,
        )


class SyncInstruments:
    """How long syncs take, and which ones fail.

    A full sync is one that read back everything of ours and wrote what differed: the first one,
    a repair, an audit, and the try after a refusal. A partial one wrote the change alone.
    """

    def __init__(self, registry: CollectorRegistry, shown: Shown) -> None:
        in_parts = registry if shown.partial_syncs else None
        iptables = registry if shown.iptables_failures else None
        self.duration = _histogram(
            registry, f"{_SYNC}_duration_seconds", "How long a sync took, even if it failed."
        )
        self.full = _histogram(
            in_parts,
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "How long a sync took that read back everything first.",
        )
        self.partial = _histogram(
            in_parts,
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "How long a sync took that wrote the change alone.",
        )
        self.audit = _histogram(
            registry,
            "kproxy_audit_duration_seconds",
            "How long it took to compare everything with the kernel and to repair it.",
        )
        self.refusals = Counter(
            "kproxy_refusals_total",
            "Syncs that the kernel refused, by what was being done.",
            ("ip_family", "doing"),
            registry=registry,
        )
        self.restore_failures = _counter(
            iptables,
            f"{_SYNC}_iptables_restore_failures_total",
            "Writes that the kernel refused.",
        )
        self.partial_restore_failures = _counter(
            iptables,
            f"{_SYNC}_iptables_partial_restore_failures_total",
            "Writes of a change alone that the kernel refused.",
        )
        self.nftables_failures = _counter(
            registry if shown.nftables_failures else None,
            f"{_SYNC}_nftables_sync_failures_total",
            "Writes that the kernel refused.",
        )

    def start(self, family: Family) -> None:
        """Make the series of a family."""
        name = family.value
        for histogram in (self.duration, self.full, self.partial, self.audit):
            histogram.labels(name)
        for counter in (
            self.restore_failures,
            self.partial_restore_failures,
            self.nftables_failures,
        ):
            counter.labels(name)
        for doing in DOING.values():
            self.refusals.labels(name, doing)


class ResultInstruments:
    """What reached the kernel, and when."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queued_at = Gauge(
            f"{_SYNC}_last_queued_timestamp_seconds",
            "When the last change came that has to be written.",
            _FAMILY,
            registry=registry,
        )
        self.written_at = Gauge(
            f"{_SYNC}_last_timestamp_seconds",
            "When the kernel last was known to hold what was asked.",
            _FAMILY,
            registry=registry,
        )
        self.programming = _histogram(
            registry,
            "kubeproxy_network_programming_duration_seconds",
            "From the change of a pod or Service, as its EndpointSlice dates it, to the kernel.",
            PROGRAMMING,
        )
        self.written = _counter(
            registry, "kproxy_written_objects_total", "Kernel objects written or removed."
        )
        self.repaired = _counter(
            registry,
            "kproxy_repaired_objects_total",
            "Kernel objects put right that somebody else had changed.",
        )
        self.flow_search = _histogram(
            registry,
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "How long it took to find and remove stale UDP flows.",
        )
        self.flows_removed = _counter(
            registry,
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "Stale UDP flows that were removed from connection tracking.",
        )

    def start(self, family: Family) -> None:
        """Make the series of a family, but not times of what never was."""
        for histogram in (self.programming, self.flow_search):
            histogram.labels(family.value)
        for counter in (self.written, self.repaired, self.flows_removed):
            counter.labels(family.value)


def _histogram(
    registry: CollectorRegistry | None,
    name: str,
    text: str,
    buckets: tuple[float, ...] = DURATION,
) -> Histogram:
    return Histogram(name, text, _FAMILY, registry=registry, buckets=buckets)


def _counter(registry: CollectorRegistry | None, name: str, text: str) -> Counter:
    return Counter(name, text, _FAMILY, registry=registry)
