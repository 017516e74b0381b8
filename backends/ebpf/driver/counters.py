"""What this data path tells the metrics: what became of packets, and how full its maps are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from backends.ebpf.driver.reasons import REASONS
from backends.ebpf.driver.sweep import Sweep
from backends.kernel.bpf.maps import Map, possible_cpus
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.ports.data_path import Metric, Sample

OUTCOMES = Metric(
    "kproxy_ebpf_outcomes_total",
    "Packets and socket calls by what became of them and why.",
    labels=("reason",),
    total=True,
)
FLOWS = Metric("kproxy_ebpf_flows", "Connections that the programs translate.")
EXPIRED = Metric(
    "kproxy_ebpf_flows_expired_total", "Connections that were silent for too long.", total=True
)
ENTRIES = Metric("kproxy_ebpf_map_entries", "Entries of the maps of Services.", labels=("map",))
MOST = Metric("kproxy_ebpf_map_max_entries", "How many entries a map can hold.", labels=("map",))


class Counters:
    """Reads what the programs counted; `entries` returns how much each map of Services holds."""

    def __init__(
        self, maps: Mapping[str, Map], sweep: Sweep, entries: Callable[[], Mapping[str, int]]
    ) -> None:
        self._reasons = maps["reasons"]
        self._most = {name: each.shape.max_entries for name, each in maps.items()}
        self._sweep = sweep
        self._entries = entries

    def samples(self) -> Iterator[Sample]:
        """Return all counts, and leave out what cannot be read."""
        yield from self._outcomes()
        if self._sweep.flows is not None:
            yield Sample(FLOWS, (), float(self._sweep.flows))
        yield Sample(EXPIRED, (), float(self._sweep.expired))
        for name, entries in self._entries().items():
            yield Sample(ENTRIES, (name,), float(entries))
            yield Sample(MOST, (name,), float(self._most[name]))
        yield Sample(MOST, ("flows",), float(self._most["flows"]))

    def _outcomes(self) -> Iterator[Sample]:
        """Return how often each way out was taken, on all CPUs."""
        totals: list[int] = []
        try:
            for _, values in self._reasons.raw_parts():
                counts = memoryview(values).cast("Q").tolist()
                cpus = possible_cpus()
                totals += (sum(counts[at : at + cpus]) for at in range(0, len(counts), cpus))
        except KernelRefusal:
            return
        for reason, total in zip(REASONS, totals, strict=True):
            yield Sample(OUTCOMES, (reason,), float(total))
