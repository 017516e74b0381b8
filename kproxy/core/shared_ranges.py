"""Whose addresses a ServiceCIDR holds although no Service has them.

The nodes' network, or the pods', may lie inside a ServiceCIDR, or around it. What no Service has
there is no unallocated clusterIP, but somebody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from kproxy.core.addresses import Family, Network, family_of_network
from kproxy.core.objects import Node
from kproxy.core.table import SharedRange

CONNECTED = "this node is directly connected to it"
CLUSTER_CIDR = "clusterCIDR"


def shared_ranges(
    service_cidrs: Collection[Network],
    *,
    connected: Iterable[Network],
    nodes: Iterable[Node],
    cluster_cidrs: Iterable[Network],
    family: Family,
) -> tuple[SharedRange, ...]:
    """Return what of a family is somebody's and overlaps a ServiceCIDR, each address once.

    Of two networks the wider one is told, of two names for one network the first.
    """
    if not service_cidrs:
        return ()
    found: dict[Network, str] = {}
    for network, by in _claims(connected, nodes, cluster_cidrs):
        if family_of_network(network) is family and any(map(network.overlaps, service_cidrs)):
            found.setdefault(network, by)
    told: list[SharedRange] = []
    widest: Network | None = None
    for network in sorted(found, key=lambda n: (int(n.network_address), n.prefixlen)):
        # Two networks are apart or one inside the other, and the wider one is first in this order.
        if widest is None or not network.overlaps(widest):
            widest = network
            told.append(SharedRange(network, found[network]))
    return tuple(told)


def _claims(
    connected: Iterable[Network], nodes: Iterable[Node], cluster_cidrs: Iterable[Network]
) -> Iterator[tuple[Network, str]]:
    for network in connected:
        yield network, CONNECTED
    for network in cluster_cidrs:
        yield network, CLUSTER_CIDR
    for node in sorted(nodes, key=lambda each: each.key):
        for network in node.pod_cidrs:
            yield network, f"podCIDR of Node {node.key}"
        for address in node.addresses:
            yield ipaddress.ip_network(address), f"Node {node.key}"
