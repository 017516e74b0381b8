"""The rules that follow from what holds for the whole node, pure."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.core.addresses import Family
from kproxy.core.table import NodeRules

LOOPBACK = {Family.IPV4: "127.0.0.0/8", Family.IPV6: "::1/128"}


def serves_loopback(rules: NodeRules, family: Family) -> bool:
    """Say whether NodePorts are served on loopback: the kernel has no route_localnet for IPv6."""
    return family is Family.IPV4 and bool(rules.localhost_node_ports)


def to_node_ports(rules: NodeRules, family: Family, chain: str) -> Iterator[str]:
    """Return the rules that send what NodePorts hold for to `chain`."""
    if serves_loopback(rules, family):
        for part in rules.localhost_node_ports:
            yield f"-d {part} -m addrtype --src-type LOCAL -j {chain}"
    yield f"-d {LOOPBACK[family]} -j RETURN"
    for network in rules.node_port_addresses:
        inside = f"-d {network} " if network.prefixlen else ""
        yield f"{inside}-m addrtype --dst-type LOCAL -j {chain}"
