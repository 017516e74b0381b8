"""What a configuration says of IP families, held against the node's (reference 2.3).

kube-proxy looks at this once it knows the Node, and goes on unless no local pod could be told from
other sources.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kproxy.config.checks import cluster_networks, split_address_port
from kproxy.config.fields import Configuration
from kproxy.core.addresses import (
    Family,
    Network,
    canonical_address,
    canonical_network,
    family_of,
    family_of_network,
)
from kproxy.core.objects import Node
from kproxy.core.settings import DetectLocalMode, NodePortKeyword


@dataclass(frozen=True, slots=True)
class Complaints:
    """Lines about what is probably not meant so; with one in `fatal`, kube-proxy does not start."""

    warnings: tuple[str, ...]
    fatal: tuple[str, ...]


def primary_family(configuration: Configuration, node: Node | None) -> Family:
    """Return the family that the cluster prefers: bindAddress's, else the Node's first address's.

    IPv4 if neither is known.
    """
    bind_address = canonical_address(configuration.bind_address)
    if not ipaddress.ip_address(bind_address).is_unspecified:
        return family_of(bind_address)
    if node is not None and node.addresses:
        return family_of(node.addresses[0])
    return Family.IPV4


def family_complaints(
    configuration: Configuration, node: Node | None, families: Iterable[Family]
) -> Complaints:
    """Hold a valid configuration against the Node and the families that are served here."""
    primary = primary_family(configuration, node)
    dual_stack = len(set(families)) > 1
    cluster = f"{primary.value}-{'primary' if dual_stack else 'only'}"
    wrong = _other(primary)
    warnings = [*_node_ports(configuration, node, primary)]
    fatal: list[str] = []
    mode = configuration.detect_local_mode
    if _all_of(_cluster_cidrs(configuration), wrong):
        line = f"the cluster is {cluster}, but clusterCIDR has only {wrong.value} networks"
        ends = mode is DetectLocalMode.CLUSTER_CIDR and not dual_stack
        (fatal if ends else warnings).append(line)
    if _all_of(node.pod_cidrs if node else (), wrong):
        line = f"the cluster is {cluster}, but the Node's podCIDRs are only {wrong.value}"
        (fatal if mode is DetectLocalMode.NODE_CIDR else warnings).append(line)
    if not dual_stack:
        warnings += _bound_elsewhere(configuration, cluster, wrong)
    return Complaints(tuple(warnings), tuple(fatal))


def _node_ports(configuration: Configuration, node: Node | None, primary: Family) -> Iterator[str]:
    """Say where NodePorts are open that were perhaps meant to be closed.

    A family of which nothing is listed is open on all addresses.
    """
    listed = [f for entry in configuration.node_port_addresses or () for f in _named(entry, node)]
    other = _other(primary)
    if not listed:
        yield (
            "nodePortAddresses names no address, so NodePorts answer on all of this node; "
            f"{NodePortKeyword.PRIMARY.value} would limit them to the Node's own"
        )
    elif primary not in listed:
        yield _open_to_all(primary, other)
    elif other not in listed and _both_families_meant(configuration, node):
        yield _open_to_all(other, primary)


def _open_to_all(family: Family, listed: Family) -> str:
    return (
        f"nodePortAddresses has only {listed.value} addresses, so NodePorts answer on every "
        f"{family.value} address of this node"
    )


def _named(entry: str, node: Node | None) -> Iterator[Family]:
    """Yield the families in which an entry of nodePortAddresses names something."""
    if entry == NodePortKeyword.PRIMARY.value:
        yield from {family_of(address) for address in (node.addresses if node else ())}
    elif entry in (NodePortKeyword.LOCALHOST.value, NodePortKeyword.ALL.value):
        yield from Family
    else:
        yield family_of_network(canonical_network(entry))


def _both_families_meant(configuration: Configuration, node: Node | None) -> bool:
    named: Iterable[Sequence[Network]] = (
        _cluster_cidrs(configuration),
        node.pod_cidrs if node else (),
    )
    return any({family_of_network(n) for n in networks} == set(Family) for networks in named)


def _bound_elsewhere(configuration: Configuration, cluster: str, wrong: Family) -> Iterator[str]:
    for name, text in (
        ("healthzBindAddress", configuration.healthz_bind_address),
        ("metricsBindAddress", configuration.metrics_bind_address),
    ):
        if not text:
            continue
        address, _ = split_address_port(text)
        if family_of(address) is wrong and not ipaddress.ip_address(address).is_unspecified:
            yield f"the cluster is {cluster}, but {name} {text} is {wrong.value}"


def _cluster_cidrs(configuration: Configuration) -> list[Network]:
    """Return the networks of clusterCIDR, which need not be valid in modes that do not use it."""
    networks = []
    for text in cluster_networks(configuration.cluster_cidr):
        try:
            networks.append(canonical_network(text))
        except ValueError:
            continue
    return networks


def _all_of(networks: Sequence[Network], family: Family) -> bool:
    return bool(networks) and all(family_of_network(n) is family for n in networks)


def _other(family: Family) -> Family:
    return Family.IPV6 if family is Family.IPV4 else Family.IPV4
