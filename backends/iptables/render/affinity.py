"""Who gets session affinity when there are not enough ipsets for everybody. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kproxy.core.table import ServicePort, ServicePortKey

# The kernel has room for 65,534 ipsets in a network namespace, which both families share with
# everybody else, and each endpoint of a service port with affinity takes one.
_SETS = 30_000

_OFF = "sessionAffinity is off, its endpoints are used all the same: "


class AffinityBudget:
    """Hands out one family's ipsets to its service ports.

    One Service with too many endpoints must cost no other one anything but affinity. `impossible`
    says why there can be no ipsets at all.
    """

    def __init__(self, *, impossible: str = "") -> None:
        self._impossible = impossible
        self._wanted: dict[ServicePortKey, int] = {}
        self._beyond: frozenset[ServicePortKey] = frozenset()
        self._refused: dict[ServicePortKey, str] = {}
        self._allowed: dict[ServicePortKey, str] = {}  # since the last update

    def update(
        self, service_ports: Mapping[ServicePortKey, ServicePort | None]
    ) -> frozenset[ServicePortKey]:
        """Take changes in; return the service ports that go without.

        Beyond the budget these are the last ones by name.
        """
        self._allowed.clear()
        if self._take(service_ports):
            self._beyond = frozenset(self._beyond_budget())
            self._refused = {k: why for k, why in self._refused.items() if k in self._wanted}
        return self._beyond | self._refused.keys()

    def refuse(self, owners: Mapping[ServicePortKey, str]) -> None:
        """Let service ports go without, from the next update on, because the kernel said no."""
        self._refused.update(owners)

    def first_refused(self) -> ServicePortKey | None:
        """Return one that goes without because the kernel said no, None if there is none."""
        return next(iter(self._refused), None)

    def allow(self, key: ServicePortKey) -> None:
        """Give a service port its ipsets back, from the next update on."""
        self._allowed[key] = self._refused.pop(key)

    def reasons(self) -> dict[ServicePortKey, str]:
        """Return why each service port goes without that does."""
        why = self._impossible or f"there are not enough ipsets, {_SETS} in all"
        beyond = dict.fromkeys(self._beyond, _OFF + why)
        refused = self._allowed | self._refused
        return beyond | {key: _OFF + reason for key, reason in refused.items()}

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
        left = 0 if self._impossible else _SETS
        for key in sorted(self._wanted, key=lambda k: (*k[:3], k.protocol.value)):
            if self._wanted[key] > left:
                beyond.append(key)
            else:
                left -= self._wanted[key]
        return beyond
