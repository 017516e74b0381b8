"""Ports of this node at which something listens, and which a Service takes away.

The rules of Services come before listening sockets, here and upstream: a packet to such a port goes
to the Service, and what listens there hears nothing more from outside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from kproxy.core.addresses import family_of
from kproxy.core.claims import Conflict
from kproxy.core.objects import EndpointSlice, Protocol
from kproxy.core.resolve import admits_node_port
from kproxy.core.table import ForwardingTable, ServicePort, ServicePortKey


class Occupant(NamedTuple):
    """Something that listens on this node, at one of its addresses or at all of them ("")."""

    address: str
    protocol: Protocol
    port: int
    name: str


def health_checks(table: ForwardingTable) -> Iterator[Occupant]:
    """Yield the healthCheckNodePorts, which this proxy itself listens at."""
    for service, check in table.health_checks.items():
        yield Occupant("", Protocol.TCP, check.port, f"{service} (healthCheckNodePort)")


def api_server(
    slices: Iterable[EndpointSlice], local_addresses: Collection[str]
) -> Iterator[Occupant]:
    """Yield where the API server listens on this node, by the slices of its own Service."""
    for each in slices:
        for endpoint in each.endpoints:
            if endpoint.address in local_addresses:
                name = f"the API server (EndpointSlice {each.key})"
                for port in each.ports:
                    yield Occupant(endpoint.address, port.protocol, port.port, name)


def conflicts(
    table: ForwardingTable,
    known: Iterable[Occupant],
    strangers: Iterable[Occupant],
    local_addresses: Collection[str],
) -> Iterator[Conflict]:
    """Yield what loses a port to a Service.

    `strangers` were seen to listen, and nobody said what they are: those at a port of somebody
    known are the same once more, and those that the Service forwards to lose nothing.
    """
    ports = set()
    for occupant in known:
        ports.add((occupant.protocol, occupant.port))
        yield from _lost(table, occupant, local_addresses)
    for occupant in strangers:
        if (occupant.protocol, occupant.port) not in ports:
            yield from _lost(table, occupant, local_addresses, but_own=True)


def _lost(
    table: ForwardingTable,
    occupant: Occupant,
    local_addresses: Collection[str],
    *,
    but_own: bool = False,
) -> Iterator[Conflict]:
    address, protocol, port, name = occupant
    owners: list[tuple[str, ServicePortKey]] = []
    by_node_port = table.node_ports.get((protocol, port))
    if by_node_port is not None and _meets_node_ports(table, address):
        owners.append(("", by_node_port))
    for each in [address] if address else local_addresses:
        found = table.vips.get((each, protocol, port))
        if found is not None:
            owners.append((each, found[0]))
    for where, key in owners:
        if not (but_own and _forwards_to(table.service_ports[key], port)):
            yield Conflict(where, protocol.value, port, str(key), name)


def _meets_node_ports(table: ForwardingTable, address: str) -> bool:
    if not address:
        return True
    return family_of(address) is table.family and admits_node_port(table.rules, address)


def _forwards_to(entry: ServicePort, port: int) -> bool:
    """Say whether an endpoint of a Service is on this node at this port: the listener itself."""
    return any(t.local and t.port == port for t in (*entry.targets, *entry.local_targets))
