"""What is said of a forwarding table in words, by the log and by the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import attrgetter

from kproxy.core.addresses import Family, endpoint_text
from kproxy.core.claims import Conflict
from kproxy.core.objects import Node, Service
from kproxy.core.settings import LocalhostNodePorts, Settings
from kproxy.core.table import ForwardingTable, ServicePortKey, Undetected
from kproxy.run.loop.status import FamilyStatus

_MOST_CONFLICTS = 50
_MOST_NAMED = 4
_PLACE = attrgetter("address", "port")  # of a target


def conflict_lines(conflicts: Collection[Conflict]) -> Iterator[str]:
    """Return who gets each frontend that two Services claim; of very many the rest is counted."""
    for conflict in sorted(conflicts)[:_MOST_CONFLICTS]:
        yield _conflict_line(conflict)
    if len(conflicts) > _MOST_CONFLICTS:
        yield f"{len(conflicts) - _MOST_CONFLICTS} more frontends are claimed twice"


def _conflict_line(conflict: Conflict) -> str:
    if conflict.address:
        frontend = f"{endpoint_text(conflict.address, conflict.port)} {conflict.protocol}"
    else:
        frontend = f"NodePort {conflict.port} {conflict.protocol}"
    return f"{frontend} is claimed twice: {conflict.winner} has it, {conflict.loser} does not"


def node_lines(node: Node | None) -> Iterator[str]:
    """Return what of this node's object cannot be used."""
    if node is None:
        return
    for text in node.unusable:
        yield f"Node {node.key}: {text!r:.80} among its addresses is none; going on without it"


def service_lines(services: Iterable[Service]) -> Iterator[str]:
    """Return what of these Services cannot be used, while the rest of them is."""
    for service in services:
        for address in service.unusable:
            yield (
                f"Service {service.key}: the load-balancer address {address} must not be a zero, "
                "loopback or link-local multicast address; going on without it"
            )


def overlap_lines(tables: Mapping[Family, ForwardingTable]) -> Iterator[str]:
    """Return which ServiceCIDRs share addresses with somebody, a line for each."""
    for table in tables.values():
        for cidr in table.rules.service_cidrs:
            shared = [s for s in table.rules.shared_ranges if s.network.overlaps(cidr)]
            if not shared:
                continue
            named = list(map(str, shared[:_MOST_NAMED]))
            if len(shared) > _MOST_NAMED:
                named.append(f"{len(shared) - _MOST_NAMED} more")
            yield (
                f"ServiceCIDR {cidr} overlaps {', '.join(named)}: what no Service has there is let "
                "through, and a Service that is given an address there hides who has it"
            )


def in_force_line(
    tables: Mapping[Family, ForwardingTable], statuses: Iterable[FamilyStatus]
) -> str:
    """Return how much is in the kernel for some families, and how much of it is not as asked."""
    named = list(statuses)
    counts = counts_line(tables[status.family] for status in named)
    families = " and ".join(status.family.value for status in named)
    unheld = {key for status in named for key in status.unheld}
    lacks = f", {len(unheld)} of the ports not as asked" if unheld else ""
    return f"{counts} in the kernel for {families}{lacks}"


def counts_line(tables: Iterable[ForwardingTable]) -> str:
    """Return how much some tables hold."""
    keys: set[ServicePortKey] = set()
    places: set[tuple[str, int]] = set()
    for table in tables:
        keys.update(table.service_ports)
        for entry in table.service_ports.values():
            places.update(map(_PLACE, entry.targets))
            places.update(map(_PLACE, entry.local_targets))
    services = len({key.service for key in keys})
    return f"{services} Services with {len(keys)} ports and {len(places)} endpoints"


def limit_lines(settings: Settings, tables: Mapping[Family, ForwardingTable]) -> Iterator[str]:
    """Return what users may expect of these tables, made with `settings`, and do not get."""
    for family, table in tables.items():
        if isinstance(table.rules.local_pods, Undetected) and table.service_ports:
            yield (
                f"{family.value}: local pods cannot be told from other sources, as "
                f"{table.rules.local_pods.why}: traffic to clusterIPs keeps its source address "
                "unless masqueradeAll is set, and externalTrafficPolicy Local binds pods too"
            )
    localhost = tables[Family.IPV4].rules.localhost_node_ports if Family.IPV4 in tables else ()
    never_ipv6 = settings.localhost_ipv6 is LocalhostNodePorts.NEVER
    if never_ipv6 and Family.IPV6 in tables and localhost:
        where = ", ".join(map(str, localhost))
        yield f"NodePorts answer on {where} and not on ::1, from where the kernel routes nothing"
