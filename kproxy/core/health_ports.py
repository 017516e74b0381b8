"""Which healthCheckNodePorts are in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kproxy.core.objects import ObjectKey
from kproxy.core.table import HealthCheck


class PortsInUse:
    """The ports of all health checks; a change costs what it changes."""

    def __init__(self) -> None:
        self._port_of: dict[ObjectKey, int] = {}
        self._users: Counter[int] = Counter()  # how many Services have a port

    def update(self, checks: Mapping[ObjectKey, HealthCheck | None]) -> dict[int, bool]:
        """Take changes in; return for each port that they are about whether any Service has it."""
        touched: set[int] = set()
        for service, check in checks.items():
            before = self._port_of.pop(service, None)
            if before is not None:
                self._users[before] -= 1
                touched.add(before)
            if check is not None:
                self._port_of[service] = check.port
                self._users[check.port] += 1
                touched.add(check.port)
        in_use = {port: self._users[port] > 0 for port in touched}
        for port, used in in_use.items():
            if not used:
                del self._users[port]
        return in_use
