"""Where a packet goes, and why: the reference that every data path is held against."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kproxy.core.addresses import Network, endpoint_text, is_loopback
from kproxy.core.decision import Masquerade, Origin, decide
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    ForwardingTable,
    FromInterface,
    FromInterfacePrefix,
    FromNetwork,
    NodeRules,
    ServicePort,
    ServicePortKey,
    Target,
    Undetected,
    Use,
    Via,
)


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection as it reaches the node. Addresses are canonical.

    `in_interface` is None for a packet that the node itself sends.
    """

    source: str
    destination: str
    port: int
    protocol: Protocol
    in_interface: str | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """The connection goes to one of `targets`, each with the same chance.

    `masquerade` says that whichever target is chosen sees the node's address. Where it is False,
    the targets in `hairpin` (the source itself) still do.
    """

    service: ServicePortKey
    via: Via
    targets: tuple[Target, ...]
    masquerade: bool
    hairpin: tuple[Target, ...]
    affinity_timeout_s: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The client is told at once: TCP by a reset, the rest by ICMP port unreachable."""

    service: ServicePortKey | None
    via: Via | None
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The packet vanishes."""

    service: ServicePortKey | None
    via: Via | None
    reason: str


@dataclass(frozen=True, slots=True)
class Pass:
    """None of our business: the packet goes on untouched."""

    reason: str


Verdict = Forward | Reject | Drop | Pass

NO_SERVICE = "no Service has this destination"


def resolve(table: ForwardingTable, packet: Packet, local_addresses: Collection[str]) -> Verdict:
    """Return what a new connection deserves.

    `local_addresses` are the node's own, canonical; loopback addresses always count as its own.
    """
    vip = table.vips.get((packet.destination, packet.protocol, packet.port))
    if vip is not None:
        key, via = vip
        return _at_frontend(table, packet, table.service_ports[key], via, local_addresses)
    to_node = _is_local(packet.destination, local_addresses)
    if to_node:
        key_or_none = table.node_ports.get((packet.protocol, packet.port))
        if key_or_none is None:
            return Pass(no_node_port(packet.destination))
        return _at_node_port(table, packet, table.service_ports[key_or_none], local_addresses)
    if packet.destination in table.cluster_ips:
        where = f"{packet.protocol.value} {packet.port}"
        return Reject(None, Via.CLUSTER_IP, f"{packet.destination} is a clusterIP without {where}")
    return _at_no_service(table.rules, packet.destination)


def _at_no_service(rules: NodeRules, destination: str) -> Verdict:
    if not _contains(rules.service_cidrs, destination):
        return Pass(NO_SERVICE)
    for each in rules.shared_ranges:
        if _contains((each.network,), destination):
            return Pass(f"{destination} is no Service's clusterIP but belongs to {each}")
    return Drop(None, None, f"{destination} is in a ServiceCIDR, but is no Service's clusterIP")


def no_node_port(address: str) -> str:
    """Return why a packet to an address of the node passes that meets no NodePort."""
    return f"{address} is this node's own address, and no NodePort is met"


def admits_node_port(rules: NodeRules, address: str) -> bool:
    """Say whether NodePorts hold on `address`, which is one of the node's own."""
    if is_loopback(address):
        return _contains(rules.localhost_node_ports, address)
    return _contains(rules.node_port_addresses, address)


def _at_node_port(
    table: ForwardingTable, packet: Packet, entry: ServicePort, local_addresses: Collection[str]
) -> Verdict:
    rules = table.rules
    if not admits_node_port(rules, packet.destination):
        off = is_loopback(packet.destination) and not rules.localhost_node_ports
        other = "nodePortAddresses leaves this address out"
        return Pass("localhost NodePorts are off" if off else other)
    if is_loopback(packet.destination) and not _is_local(packet.source, local_addresses):
        return Pass("a loopback address holds NodePorts for the node itself alone")
    return _at_frontend(table, packet, entry, Via.NODE_PORT, local_addresses)


def _at_frontend(
    table: ForwardingTable,
    packet: Packet,
    entry: ServicePort,
    via: Via,
    local_addresses: Collection[str],
) -> Verdict:
    if via is Via.LOAD_BALANCER and not _admits_source(entry, packet.source):
        return Drop(entry.key, via, f"{packet.source} is outside loadBalancerSourceRanges")
    decision = decide(entry, via, table.rules, origin_of(table.rules, packet, local_addresses))
    if decision.use is Use.REJECT:
        return Reject(entry.key, via, "no usable endpoint anywhere")
    if decision.use is Use.DROP:
        return Drop(entry.key, via, no_local_endpoint(via))
    targets = entry.targets if decision.use is Use.TARGETS else entry.local_targets
    hairpin = tuple(target for target in targets if target.address == packet.source)
    everyone = len(hairpin) == len(targets)
    why = _why(decision.masquerade, table.rules)
    if hairpin and not decision.masquerade.applies:
        chosen = ", ".join(map(str, hairpin))
        why += f"; masqueraded where the source itself is chosen ({chosen})"
    return Forward(
        service=entry.key,
        via=via,
        targets=targets,
        masquerade=decision.masquerade.applies or everyone,
        hairpin=hairpin,
        affinity_timeout_s=entry.affinity_timeout_s,
        reason=f"{_frontend(packet, via)}: {why}",
    )


def no_local_endpoint(via: Via) -> str:
    """Return why a packet is dropped that policy Local leaves without an endpoint."""
    policy = "internal" if via is Via.CLUSTER_IP else "external"
    return f"{policy}TrafficPolicy is Local and no endpoint is on this node"


def _admits_source(entry: ServicePort, source: str) -> bool:
    return entry.sources is None or _contains(entry.sources, source)


def _frontend(packet: Packet, via: Via) -> str:
    return f"{via.value} {endpoint_text(packet.destination, packet.port)}"


def _why(masquerade: Masquerade, rules: NodeRules) -> str:
    if masquerade is Masquerade.UNDETECTED and isinstance(rules.local_pods, Undetected):
        return f"{masquerade.why} ({rules.local_pods.why})"
    return masquerade.why


def origin_of(rules: NodeRules, packet: Packet, local_addresses: Collection[str]) -> Origin:
    """Return where a connection comes from."""
    if _from_local_pod(rules, packet):
        return Origin.POD
    return Origin.NODE if _is_local(packet.source, local_addresses) else Origin.OUTSIDE


def _from_local_pod(rules: NodeRules, packet: Packet) -> bool:
    match rules.local_pods:
        case FromNetwork(network):
            return _contains((network,), packet.source)
        case FromInterface(name):
            return packet.in_interface == name
        case FromInterfacePrefix(prefix):
            return packet.in_interface is not None and packet.in_interface.startswith(prefix)
        case Undetected():
            return False


def _is_local(address: str, local_addresses: Collection[str]) -> bool:
    return is_loopback(address) or address in local_addresses


def _contains(networks: Iterable[Network], address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)
