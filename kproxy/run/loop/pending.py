"""Table changes that wait to be written."""

from __future__ import annotations

from kproxy.core.addresses import Family
from kproxy.core.objects import ObjectKey
from kproxy.core.table import HealthCheck, NodeRules, ServicePort, ServicePortKey, TableChanges


class Pending:
    """Table changes of one family, merged as they come.

    Equal to joining them with `TableChanges.then`, but adding one costs its own size only.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._rules: NodeRules | None = None
        self._service_ports: dict[ServicePortKey, ServicePort | None] = {}
        self._cluster_ips: dict[str, bool] = {}
        self._health_checks: dict[ObjectKey, HealthCheck | None] = {}

    def add(self, changes: TableChanges) -> None:
        """Merge a change that came after all others."""
        self._rules = changes.rules or self._rules
        self._service_ports.update(changes.service_ports)
        self._cluster_ips.update(changes.cluster_ips)
        self._health_checks.update(changes.health_checks)

    def take(self) -> TableChanges:
        """Return everything that was added since the last call, as one change."""
        taken = TableChanges(
            family=self._family,
            rules=self._rules,
            service_ports=self._service_ports,
            cluster_ips=self._cluster_ips,
            health_checks=self._health_checks,
        )
        self._rules = None
        self._service_ports = {}
        self._cluster_ips = {}
        self._health_checks = {}
        return taken
