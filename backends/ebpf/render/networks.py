"""Node rules to longest-prefix maps: the longest network that holds an address decides. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from backends.ebpf.render.layout import Layout, LocalPodsBy, TableMap, Unclaimed
from kproxy.core.addresses import Family, Network
from kproxy.core.image import Key
from kproxy.core.table import FromInterface, FromInterfacePrefix, FromNetwork, NodeRules

_LOOPBACK: dict[Family, Network] = {
    Family.IPV4: ipaddress.ip_network("127.0.0.0/8"),
    Family.IPV6: ipaddress.ip_network("::1/128"),
}


def entries(layout: Layout, rules: NodeRules) -> Iterator[tuple[Key, bytes]]:
    """Yield what holds for every service port."""
    for network, verdict in unclaimed(rules).items():
        yield layout.network(TableMap.UNCLAIMED_NETWORKS, network), bytes([verdict])
    for network, admitted in node_ports(rules, layout.family).items():
        yield layout.network(TableMap.NODE_PORT_NETWORKS, network), bytes([admitted])
    yield TableMap.TABLE_RULES.prefix + bytes(4), _rules(layout, rules)


def unclaimed(rules: NodeRules) -> dict[Network, Unclaimed]:
    """Return what becomes of addresses that no Service has.

    What lies in a shared range passes, however narrow a ServiceCIDR there is inside of it. So
    such a ServiceCIDR is left out, and a shared range is never the wider one of two.
    """
    shared = [each.network for each in rules.shared_ranges]
    dropped = [n for n in rules.service_cidrs if not any(_is_inside(n, each) for each in shared)]
    passed = [n for n in shared if any(map(n.overlaps, rules.service_cidrs))]
    return {
        **dict.fromkeys(dropped, Unclaimed.DROP),
        **dict.fromkeys(passed, Unclaimed.PASS),
    }


def node_ports(rules: NodeRules, family: Family) -> dict[Network, bool]:
    """Return at which of the node's own addresses NodePorts hold, and at which they do not."""
    loopback = _LOOPBACK[family]
    listed = [n for n in rules.node_port_addresses if not _is_inside(n, loopback)]
    local = [n for n in rules.localhost_node_ports if n.overlaps(loopback)]
    return {
        **dict.fromkeys(listed, True),
        loopback: False,
        **{(n if _is_inside(n, loopback) else loopback): True for n in local},
    }


def _is_inside(network: Network, other: Network) -> bool:
    return other.prefixlen <= network.prefixlen and network.overlaps(other)


def _rules(layout: Layout, rules: NodeRules) -> bytes:
    nothing = layout.unspecified
    match rules.local_pods:
        case FromNetwork(network):
            address, mask = network.network_address.packed, network.netmask.packed
            return layout.rules.pack(address, mask, LocalPodsBy.NETWORK)
        case FromInterface() | FromInterfacePrefix():
            return layout.rules.pack(nothing, nothing, LocalPodsBy.DEVICE)
        case _:
            return layout.rules.pack(nothing, nothing, LocalPodsBy.UNDETECTED)
