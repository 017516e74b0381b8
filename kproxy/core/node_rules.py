"""What holds for every service port on this node, from the settings and the Node object."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.core.addresses import Family, Network, family_of, family_of_network, is_loopback
from kproxy.core.objects import Node, ServiceCIDR
from kproxy.core.settings import (
    DetectLocalMode,
    LocalhostNodePorts,
    NodePortKeyword,
    Settings,
)
from kproxy.core.shared_ranges import shared_ranges
from kproxy.core.table import (
    FromInterface,
    FromInterfacePrefix,
    FromNetwork,
    LocalPods,
    NodeRules,
    Undetected,
)

_LOOPBACK: dict[Family, Network] = {
    Family.IPV4: ipaddress.ip_network("127.0.0.0/8"),
    Family.IPV6: ipaddress.ip_network("::1/128"),
}
_EVERYWHERE: dict[Family, Network] = {
    Family.IPV4: ipaddress.ip_network("0.0.0.0/0"),
    Family.IPV6: ipaddress.ip_network("::/0"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known beside the settings.

    - `node`: the Node object of this node; None if it is missing, its facts are unknown then.
    - `nodes`: every known Node, this one among them.
    - `connected`: the networks that this node is directly connected to, of both families.
    """

    node: Node | None = None
    nodes: Iterable[Node] = ()
    service_cidrs: Iterable[ServiceCIDR] = ()
    connected: Iterable[Network] = ()


def node_rules(settings: Settings, around: Surroundings, family: Family) -> NodeRules:
    """Return the rules of one family."""
    node = around.node
    listed = _listed_node_port_addresses(settings, node)
    mine = sorted({n for n in listed if family_of_network(n) is family}, key=_network_order)
    everywhere = not mine or any(n.prefixlen == 0 for n in mine)
    cidrs = {cidr for each in around.service_cidrs for cidr in each.cidrs}
    service_cidrs = tuple(
        sorted((c for c in cidrs if family_of_network(c) is family), key=_network_order)
    )
    return NodeRules(
        local_pods=_local_pods(settings, node, family),
        masquerade_all=settings.masquerade_all,
        node_port_addresses=(_EVERYWHERE[family],) if everywhere else tuple(mine),
        localhost_node_ports=_localhost(settings, mine, family),
        service_cidrs=service_cidrs,
        shared_ranges=shared_ranges(
            service_cidrs,
            connected=around.connected,
            nodes=around.nodes,
            cluster_cidrs=settings.cluster_cidrs,
            family=family,
        ),
    )


def node_address(settings: Settings, node: Node | None, family: Family) -> str | None:
    """Return the address by which this node is known in a family, None if it has none."""
    if settings.bind_address and family_of(settings.bind_address) is family:
        return settings.bind_address
    return node.address(family) if node else None


def _network_order(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def _first_of(networks: Sequence[Network], family: Family) -> Network | None:
    return next((n for n in networks if family_of_network(n) is family), None)


def _local_pods(settings: Settings, node: Node | None, family: Family) -> LocalPods:
    mode = settings.detect_local
    if mode is DetectLocalMode.BRIDGE_INTERFACE:
        return FromInterface(settings.bridge_interface)
    if mode is DetectLocalMode.INTERFACE_NAME_PREFIX:
        return FromInterfacePrefix(settings.interface_name_prefix)
    if mode is DetectLocalMode.NODE_CIDR:
        network = _first_of(node.pod_cidrs, family) if node else None
        missing = f"the Node object has no {family.value} podCIDR"
    else:
        network = _first_of(settings.cluster_cidrs, family)
        missing = f"clusterCIDR names no {family.value} network"
    return FromNetwork(network) if network is not None else Undetected(missing)


def _listed_node_port_addresses(settings: Settings, node: Node | None) -> list[Network]:
    networks: list[Network] = []
    for entry in settings.node_port_addresses:
        if entry is NodePortKeyword.PRIMARY:
            networks += _primary(settings, node)
        elif entry is NodePortKeyword.LOCALHOST:
            networks += _LOOPBACK.values()
        elif entry is NodePortKeyword.ALL:
            networks += _EVERYWHERE.values()
        else:
            networks.append(entry)
    return networks


def _primary(settings: Settings, node: Node | None) -> list[Network]:
    addresses = [node_address(settings, node, family) for family in Family]
    return [ipaddress.ip_network(a) for a in addresses if a is not None and not is_loopback(a)]


def _localhost(settings: Settings, mine: Sequence[Network], family: Family) -> tuple[Network, ...]:
    """Return the part of loopback where NodePorts hold."""
    wanted = settings.localhost_ipv4 if family is Family.IPV4 else settings.localhost_ipv6
    if wanted is LocalhostNodePorts.NEVER:
        return ()
    loopback = _LOOPBACK[family]
    everywhere = not mine or any(n.prefixlen == 0 for n in mine)
    named = [n for n in mine if n.prefixlen > 0 and n.overlaps(loopback)]
    if wanted is LocalhostNodePorts.COVERED and everywhere:
        return (loopback,)
    if any(n.prefixlen <= loopback.prefixlen for n in named):
        return (loopback,)
    return tuple(named)
