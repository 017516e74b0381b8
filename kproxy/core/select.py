"""Which endpoints may take a new connection (reference/kube-proxy.md 1.1 and 1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.core.addresses import endpoint_text
from kproxy.core.objects import Endpoint, EndpointSlice, Protocol
from kproxy.core.table import Target


@dataclass(frozen=True, slots=True)
class Where:
    """The node that chooses; `zone` is "" where the node has no zone label."""

    node_name: str
    zone: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The lists of one service port, each sorted by "ip:port" as text.

    `cluster` is empty exactly if no endpoint anywhere is usable. `serving` holds (address, port)
    of every serving endpoint, whatever topology and policies say, for UDP alone.
    """

    cluster: tuple[Target, ...]
    local: tuple[Target, ...]
    serving: frozenset[tuple[str, int]]


PortId = tuple[str, Protocol]  # by which a Service's port finds the ports of its slices
Offer = tuple[EndpointSlice, int]  # a slice, and the number that the port has there
_Found = tuple[str, int, Endpoint]  # "ip:port", port, the endpoint that has it


def by_port(slices: Iterable[EndpointSlice]) -> dict[PortId, list[Offer]]:
    """Return which slices have which port; both Services and slices may have thousands."""
    offers: dict[PortId, list[Offer]] = {}
    for each in slices:
        for port in each.ports:
            offers.setdefault((port.name, port.protocol), []).append((each, port.port))
    return offers


def select(offers: Iterable[Offer], protocol: Protocol, where: Where) -> Selection:
    """Return the endpoints of one service port, of one family; `offers` are those of this port.

    Ready endpoints that fit the topology hints win; without any, all that still serve while they
    terminate, so that a rolling restart slows a client down instead of refusing it.
    """
    found = _merged(offers)
    asked = found if protocol is Protocol.UDP else ()
    return Selection(
        cluster=_targets(_usable(found, _fits_topology(found, where)), where),
        local=_targets(_usable([f for f in found if f[2].node == where.node_name]), where),
        serving=frozenset((e.address, port) for _, port, e in asked if e.serving or e.ready),
    )


def local_ready_addresses(slices: Iterable[EndpointSlice], where: Where) -> set[str]:
    """Return the distinct addresses of ready endpoints on this node, over all ports."""
    return {
        endpoint.address
        for each in slices
        if each.ports
        for endpoint in each.endpoints
        if endpoint.ready and endpoint.node == where.node_name
    }


def _merged(offers: Iterable[Offer]) -> list[_Found]:
    """Return the endpoints by ip:port; a running pod wins over a terminating one of that address.

    Among equals the later offer wins, by slice name, so that the order of events cannot show.
    """
    merged: dict[str, _Found] = {}
    for each, port in offers:
        for endpoint in each.endpoints:
            text = endpoint_text(endpoint.address, port)
            if not endpoint.terminating or text not in merged:
                merged[text] = (text, port, endpoint)
    return [merged[text] for text in sorted(merged)]


def _usable(found: Sequence[_Found], fitting: Sequence[_Found] | None = None) -> list[_Found]:
    """Return the ready ones among `fitting`, or all of `found` that serve while terminating."""
    ready = [f for f in (found if fitting is None else fitting) if f[2].ready]
    return ready or [f for f in found if f[2].serving and f[2].terminating]


def _fits_topology(found: Sequence[_Found], where: Where) -> Sequence[_Found]:
    """Return the endpoints that the hints allow for this node.

    Hints count only if every ready endpoint has one and at least one names us: first by node,
    then by zone (KEP-2433, KEP-4444).
    """
    ready = [endpoint for _, _, endpoint in found if endpoint.ready]
    if all(e.node_hints for e in ready) and any(where.node_name in e.node_hints for e in ready):
        return [f for f in found if where.node_name in f[2].node_hints]
    zones_hinted = bool(where.zone) and all(e.zone_hints for e in ready)
    if zones_hinted and any(where.zone in e.zone_hints for e in ready):
        return [f for f in found if where.zone in f[2].zone_hints]
    return found


def _targets(found: Sequence[_Found], where: Where) -> tuple[Target, ...]:
    here = where.node_name
    return tuple([Target(e.address, port, e.node == here) for _, port, e in found])
