"""One family's forwarding table, and what each Service put into it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kproxy.core.addresses import Family
from kproxy.core.claims import Claims
from kproxy.core.objects import ObjectKey
from kproxy.core.table import (
    ForwardingTable,
    Frontend,
    HealthCheck,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one Service yields in one family, before anybody disputes its frontends."""

    service_ports: tuple[ServicePort, ...] = ()
    cluster_ip: str | None = None
    health_check: HealthCheck | None = None


NOTHING = Compiled()


class FamilyTable:
    """Merges what the Services yield into one table and collects what that changed."""

    def __init__(self, family: Family, rules: NodeRules) -> None:
        self.claims = Claims()
        self.revision = 0  # of what decides who has which port: a new one where that changed
        self.table = ForwardingTable(family, rules)
        self._rules_sent = False
        self._claimed: dict[ServicePortKey, tuple[Frontend, ...]] = {}
        self._service_ports_of: dict[ObjectKey, tuple[ServicePortKey, ...]] = {}
        self._cluster_ip_of: dict[ObjectKey, str] = {}
        self._owners_of_cluster_ip: dict[str, set[ObjectKey]] = {}

    def update(self, rules: NodeRules, compiled: dict[ObjectKey, Compiled]) -> TableChanges:
        """Take in what some Services yield now; return what is different in the table."""
        entries: dict[ServicePortKey, ServicePort | None] = {}
        for service, each in compiled.items():
            entries.update(self._entries(service, each))
        cluster_ips = self._update_cluster_ips(compiled)
        changes = TableChanges(
            family=self.table.family,
            rules=rules if rules != self.table.rules or not self._rules_sent else None,
            service_ports=self._update_service_ports(entries),
            cluster_ips=cluster_ips,
            health_checks={
                service: each.health_check
                for service, each in compiled.items()
                if each.health_check != self.table.health_checks.get(service)
            },
        )
        self._rules_sent = True
        if changes.rules is not None or self._moves_health_port(changes):
            self.revision += 1
        self.table.apply(changes)
        return changes

    def _moves_health_port(self, changes: TableChanges) -> bool:
        before = self.table.health_checks
        return any(
            (check.port if check else 0) != (before[service].port if service in before else 0)
            for service, check in changes.health_checks.items()
        )

    def _entries(
        self, service: ObjectKey, compiled: Compiled
    ) -> dict[ServicePortKey, ServicePort | None]:
        """Return the Service's entries by key, None for those that it no longer has."""
        entries: dict[ServicePortKey, ServicePort | None] = dict.fromkeys(
            self._service_ports_of.pop(service, ())
        )
        if compiled.service_ports:
            keys = tuple(entry.key for entry in compiled.service_ports)
            self._service_ports_of[service] = keys
            entries.update(zip(keys, compiled.service_ports, strict=True))
        return entries

    def _update_service_ports(
        self, entries: dict[ServicePortKey, ServicePort | None]
    ) -> dict[ServicePortKey, ServicePort | None]:
        affected: set[ServicePortKey] = set()
        for key, entry in entries.items():
            old = self._claimed.pop(key, ())
            new = entry.frontends if entry is not None else ()
            if entry is not None:
                self._claimed[key] = new
            if old != new:
                self.revision += 1
                affected |= self.claims.replace(key, old, new)
        changed: dict[ServicePortKey, ServicePort | None] = {}
        for key in entries.keys() | affected:
            current = self.table.service_ports.get(key)
            entry = entries.get(key, current)
            final = None if entry is None else self._settled(key, entry)
            if final != current:
                changed[key] = final
        return changed

    def _settled(self, key: ServicePortKey, entry: ServicePort) -> ServicePort:
        """Return the entry with those frontends alone that are its own."""
        owned = self.claims.owned(key, self._claimed[key])
        return entry if owned == entry.frontends else replace(entry, frontends=owned)

    def _update_cluster_ips(self, compiled: dict[ObjectKey, Compiled]) -> dict[str, bool]:
        touched: set[str] = set()
        for service, each in compiled.items():
            old = self._cluster_ip_of.pop(service, None)
            if old is not None:
                self._owners_of_cluster_ip[old].discard(service)
                touched.add(old)
            if each.cluster_ip is not None:
                self._cluster_ip_of[service] = each.cluster_ip
                self._owners_of_cluster_ip.setdefault(each.cluster_ip, set()).add(service)
                touched.add(each.cluster_ip)
        for address in touched:
            if not self._owners_of_cluster_ip[address]:
                del self._owners_of_cluster_ip[address]
        return {
            address: address in self._owners_of_cluster_ip
            for address in touched
            if (address in self._owners_of_cluster_ip) != (address in self.table.cluster_ips)
        }
