"""Short ways to say tables and flows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kproxy.core.addresses import Family
from kproxy.core.flows import Flow, UdpFlows, Where
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    Frontend,
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    SharedRange,
    TableChanges,
    Target,
    Undetected,
    Use,
    Via,
    Vip,
)

VIP = ("10.96.0.10", 53)
OTHER_VIP = ("10.96.0.11", 53)
NODE_PORT = 30053
NODE = "192.0.2.1"
SECOND = "198.51.100.1"
LOCAL = (NODE, SECOND, "127.0.0.1")
A, B, C = ("10.244.0.1", 5353), ("10.244.0.2", 5353), ("10.244.0.3", 5353)
CLIENT = ("203.0.113.7", 40000)


def key(name: str = "dns", protocol: Protocol = Protocol.UDP) -> ServicePortKey:
    """Name a service port."""
    return ServicePortKey("default", name, "", protocol)


def rules(
    node_ports: Iterable[str] = ("0.0.0.0/0",),
    *,
    localhost: bool | str = True,
    services: Iterable[str] = ("10.96.0.0/16",),
    shared_ranges: Iterable[str] = (),
) -> NodeRules:
    """Make a node's rules; `localhost` may name a part of loopback."""
    loopback = ipaddress.ip_network(localhost if isinstance(localhost, str) else "127.0.0.0/8")
    return NodeRules(
        local_pods=Undetected("not asked"),
        masquerade_all=False,
        node_port_addresses=tuple(ipaddress.ip_network(network) for network in node_ports),
        localhost_node_ports=(loopback,) if localhost else (),
        service_cidrs=tuple(ipaddress.ip_network(network) for network in services),
        shared_ranges=tuple(
            SharedRange(ipaddress.ip_network(network), "pods") for network in shared_ranges
        ),
    )


def service_port(
    places: Iterable[Where | int],
    serving: Iterable[Where],
    *,
    used: Iterable[Where] | None = None,
    of: ServicePortKey | None = None,
) -> ServicePort:
    """Make a service port; the endpoints in use are the serving ones unless said otherwise."""
    serving = frozenset(serving)
    targets = tuple(
        Target(*where, local=False) for where in sorted(serving if used is None else used)
    )
    use = Use.TARGETS if targets else Use.REJECT
    frontends: tuple[Frontend, ...] = tuple(
        NodePort(place) if isinstance(place, int) else Vip(Via.CLUSTER_IP, *place)
        for place in places
    )
    return ServicePort(
        key=of or key(),
        frontends=frontends,
        internal=use,
        external=use,
        external_local=False,
        targets=targets,
        local_targets=(),
        sources=None,
        affinity_timeout_s=None,
        serving=serving,
    )


def change(
    *entries: ServicePort, gone: Iterable[ServicePortKey] = (), rules: NodeRules | None = None
) -> TableChanges:
    """Make a table change."""
    return TableChanges(
        family=Family.IPV4,
        rules=rules,
        service_ports={**dict.fromkeys(gone), **{entry.key: entry for entry in entries}},
    )


def flow(to: Where, answers: Where | None = None, *, zone: int = 0, client: Where = CLIENT) -> Flow:
    """Make a client's flow; without `answers` nobody translated it."""
    return Flow(*client, *to, *(answers or to), *client, zone)


def settled(*changes: TableChanges) -> UdpFlows:
    """Return flows whose clean-up after these changes is done."""
    flows = UdpFlows()
    for each in changes:
        flows.apply(each)
        flows.settled()
    return flows


def stale(flows: UdpFlows, *candidates: Flow) -> list[Flow]:
    """Return which of the candidates are stale, as the loop would ask."""
    suspects = flows.suspects
    return list(flows.stale((each for each in candidates if suspects.admit(each)), LOCAL))
