"""What this data path tells the metrics: how much it keeps in the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from backends.ipvs.driver.servers import Servers
from backends.ipvs.driver.sets import Sets
from backends.kernel.xtables.tools import Variant
from kproxy.ports.data_path import Metric, Sample

VARIANT = Metric(
    "kproxy_ipvs_info", "1, with the variant that rules are written in.", labels=("variant",)
)
SERVERS = Metric("kproxy_ipvs_virtual_servers", "Virtual servers of ours.")
DRAINING = Metric(
    "kproxy_ipvs_draining_destinations",
    "Endpoints that take no new connections and still have open ones, at each virtual server.",
)
ELEMENTS = Metric("kproxy_ipvs_set_elements", "Elements of our ipsets.", labels=("set",))


class Counters:
    """Counts what the driver knows without asking the kernel."""

    def __init__(self, variant: Variant, servers: Servers, sets: Sets) -> None:
        self._variant = variant
        self._servers = servers
        self._sets = sets

    def samples(self) -> Iterator[Sample]:
        """Return the counts, as observed and written last."""
        yield Sample(VARIANT, (self._variant.value,), 1.0)
        yield Sample(SERVERS, (), float(self._servers.count()))
        yield Sample(DRAINING, (), float(self._servers.draining()))
        for kind, count in self._sets.counts().items():
            yield Sample(ELEMENTS, (kind.value.name,), float(count))
