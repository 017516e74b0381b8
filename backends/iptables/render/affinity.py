"""Who gets session affinity when there are not enough ipsets for everybody. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kproxy.core.table import ServicePort, ServicePortKey

# The kernel has room for 65,534 ipsets in a network namespace, which both families share with
# everybody else, and each endpoint of a service port with affinity takes one.
_SETS = 30_000


class AffinityBudget:
    """Hands out one family's ipsets to its service ports.

    One Service with too many endpoints must cost no other one anything but affinity.
    """

    def __init__(self) -> None:
        self._wanted: dict[ServicePortKey, int] = {}
        self._beyond: frozenset[ServicePortKey] = frozenset()

    def update(
        self, service_ports: Mapping[ServicePortKey, ServicePort | None]
    ) -> frozenset[ServicePortKey]:
        """Take changes in; return the service ports that go without, the last ones by name."""
        if self._take(service_ports):
            self._beyond = frozenset(self._beyond_budget())
        return self._beyond

    def _take(self, service_ports: Mapping[ServicePortKey, ServicePort | None]) -> bool:
        """Note who wants how many; say whether that is different now."""
        different = False
        for key, entry in service_ports.items():
            count = 0
            if entry is not None and entry.affinity_timeout_s is not None:
                count = len({*entry.targets, *entry.local_targets})
            different = different or count != self._wanted.get(key, 0)
            self._wanted.pop(key, None)
            if count:
                self._wanted[key] = count
        return different

    def _beyond_budget(self) -> list[ServicePortKey]:
        beyond = []
        left = _SETS
        for key in sorted(self._wanted, key=lambda k: (*k[:3], k.protocol.value)):
            if self._wanted[key] > left:
                beyond.append(key)
            else:
                left -= self._wanted[key]
        return beyond
