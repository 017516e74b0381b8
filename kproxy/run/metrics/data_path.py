"""What the data paths tell of themselves, kept from the last time that they were asked."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Exposed

from kproxy.core.addresses import Family
from kproxy.ports.data_path import Metric, Sample


class DataPathCollector:
    """Tells the last samples of every family: a scrape must not wait for the kernel."""

    def __init__(self) -> None:
        self._samples: dict[Family, tuple[Sample, ...]] = {}

    def describe(self) -> tuple[Exposed, ...]:
        """Return nothing: what a data path counts shows with its first samples."""
        return ()

    def counted(self, family: Family, samples: tuple[Sample, ...]) -> None:
        """Replace what is known of a family."""
        self._samples[family] = samples

    def collect(self) -> Iterator[Exposed]:
        """Return it, the families of a metric apart or added up as the metric says."""
        values: dict[Metric, dict[tuple[str, ...], float]] = {}
        for family, samples in self._samples.items():
            for metric, labels, value in samples:
                row = (*labels, family.value) if metric.by_family else labels
                column = values.setdefault(metric, {})
                column[row] = column.get(row, 0.0) + value
        for metric, column in values.items():
            kind = CounterMetricFamily if metric.total else GaugeMetricFamily
            names = (*metric.labels, "ip_family") if metric.by_family else metric.labels
            exposed = kind(metric.name, metric.help, labels=names)
            for row, value in column.items():
                exposed.add_metric(row, value)
            yield exposed
