"""The forwarding table: what happens to a packet, with no word about how a kernel does it.

A table belongs to one IP family. It is plain data that `compile` makes, `resolve` reads and a
data path translates. It changes by `TableChanges`, which name only what differs, so that the
worker that programs the kernel and the loop that compiles never share a mutable object.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from kproxy.core.addresses import Family, Network, endpoint_text
from kproxy.core.objects import ObjectKey, Protocol


class Via(enum.Enum):
    """The kind of frontend that a packet met."""

    CLUSTER_IP = "clusterIP"
    EXTERNAL_IP = "externalIP"
    LOAD_BALANCER = "loadBalancer"
    NODE_PORT = "nodePort"

    __hash__ = object.__hash__  # an Enum's own is written in Python


class ServicePortKey(NamedTuple):
    """Identifies a service port; two protocols of one port name are two service ports."""

    namespace: str
    name: str
    port: str  # the port's name, often empty
    protocol: Protocol

    def __str__(self) -> str:
        suffix = f":{self.port}" if self.port else ""
        return f"{self.namespace}/{self.name}{suffix}"

    @property
    def service(self) -> ObjectKey:
        """The Service that this port belongs to."""
        return ObjectKey(self.namespace, self.name)


class Vip(NamedTuple):
    """A frontend at an address that need not be the node's."""

    via: Via
    address: str
    port: int


class NodePort(NamedTuple):
    """A frontend at every address that `NodeRules.node_port_addresses` admits."""

    port: int


Frontend = Vip | NodePort


class Target(msgspec.Struct, frozen=True, gc=False):
    """Where a connection may be sent. `local` means that the endpoint runs on this node.

    A Struct because there are as many as endpoints; see there.
    """

    address: str
    port: int
    local: bool

    def __str__(self) -> str:
        return endpoint_text(self.address, self.port)


class Use(enum.Enum):
    """What new connections of one traffic class get."""

    TARGETS = "balance over targets"
    LOCAL_TARGETS = "balance over local_targets"
    REJECT = "no usable endpoint anywhere"
    DROP = "endpoints exist, but policy Local leaves none"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One service port of one family, with every decision about its endpoints taken.

    - `frontends`: those that this service port owns; no frontend has two owners in a table.
    - `internal` decides for clusterIP, `external` for every other frontend.
    - `external_local`: externalTrafficPolicy is Local. Then `external` is what outsiders get,
      while local pods and the node itself are short-circuited to `targets` (REJECT if empty).
    - `targets`: the cluster list; `local_targets`: the local list (reference 1.2). Sorted by
      "ip:port" as text. A list that the use of none of `frontends` leads to may be left out.
    - `sources`: who may use the load-balancer addresses; None admits everyone.
    - `affinity_timeout_s`: sliding client-IP affinity over all frontends, None if off.
    - `serving`: (address, port) of every serving endpoint, whatever policy or topology say;
      kept for UDP alone, where it decides which flows are stale.
    """

    key: ServicePortKey
    frontends: tuple[Frontend, ...]
    internal: Use
    external: Use
    external_local: bool
    targets: tuple[Target, ...]
    local_targets: tuple[Target, ...]
    sources: tuple[Network, ...] | None
    affinity_timeout_s: int | None
    serving: frozenset[tuple[str, int]]

    def by_kind(self) -> Iterator[tuple[Via, Frontend]]:
        """Yield the frontends with their kind."""
        for frontend in self.frontends:
            yield (frontend.via if isinstance(frontend, Vip) else Via.NODE_PORT), frontend


@dataclass(frozen=True, slots=True)
class FromNetwork:
    """Local pods are recognised by a source inside `network`."""

    network: Network


@dataclass(frozen=True, slots=True)
class FromInterface:
    """Local pods are recognised by the input interface."""

    name: str


@dataclass(frozen=True, slots=True)
class FromInterfacePrefix:
    """Local pods are recognised by how the input interface's name begins."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Undetected:
    """Local pods cannot be told from other sources."""

    why: str


LocalPods = FromNetwork | FromInterface | FromInterfacePrefix | Undetected


@dataclass(frozen=True, slots=True)
class SharedRange:
    """A network inside or around a ServiceCIDR that is somebody's; `by` says in words whose."""

    network: Network
    by: str

    def __str__(self) -> str:
        alone = self.network.num_addresses == 1
        return f"{self.network.network_address if alone else self.network} ({self.by})"


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What holds for every service port of one family on this node.

    NodePorts hold on each local address inside one of `node_port_addresses` (never empty; a
    zero-length network is every address), except on loopback addresses, where
    `localhost_node_ports` alone decides: the part of loopback where they do. An address in one of
    `service_cidrs` that no Service has is dropped unless it is in one of `shared_ranges`.
    """

    local_pods: LocalPods
    masquerade_all: bool
    node_port_addresses: tuple[Network, ...]
    localhost_node_ports: tuple[Network, ...]
    service_cidrs: tuple[Network, ...]
    shared_ranges: tuple[SharedRange, ...]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A Service's healthCheckNodePort and how many distinct local ready endpoints it has."""

    port: int
    local_ready: int


@dataclass(frozen=True, slots=True)
class TableChanges:
    """What differs between two successive tables of one family. A None value means: gone.

    `rules` None means that they did not change. `cluster_ips` maps an address to whether it now
    is some Service's clusterIP.
    """

    family: Family
    rules: NodeRules | None = None
    service_ports: Mapping[ServicePortKey, ServicePort | None] = field(default_factory=dict)
    cluster_ips: Mapping[str, bool] = field(default_factory=dict)
    health_checks: Mapping[ObjectKey, HealthCheck | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rules or self.service_ports or self.cluster_ips or self.health_checks)

    def then(self, later: TableChanges) -> TableChanges:
        """Return both changes as one: applying it equals applying this and then `later`."""
        return TableChanges(
            family=self.family,
            rules=later.rules or self.rules,
            service_ports={**self.service_ports, **later.service_ports},
            cluster_ips={**self.cluster_ips, **later.cluster_ips},
            health_checks={**self.health_checks, **later.health_checks},
        )


@dataclass(slots=True)
class ForwardingTable:
    """All of one family's decisions. `vips` and `node_ports` index the frontends' owners."""

    family: Family
    rules: NodeRules
    service_ports: dict[ServicePortKey, ServicePort] = field(default_factory=dict)
    vips: dict[tuple[str, Protocol, int], tuple[ServicePortKey, Via]] = field(default_factory=dict)
    node_ports: dict[tuple[Protocol, int], ServicePortKey] = field(default_factory=dict)
    cluster_ips: set[str] = field(default_factory=set)
    health_checks: dict[ObjectKey, HealthCheck] = field(default_factory=dict)

    def apply(self, changes: TableChanges) -> None:
        """Bring this table up to date."""
        if changes.rules is not None:
            self.rules = changes.rules
        for key in changes.service_ports:
            old = self.service_ports.pop(key, None)
            if old is not None:
                self._unindex(old)
        for key, new in changes.service_ports.items():
            if new is not None:
                self.service_ports[key] = new
                self._index(new)
        for address, known in changes.cluster_ips.items():
            (self.cluster_ips.add if known else self.cluster_ips.discard)(address)
        for service, check in changes.health_checks.items():
            if check is None:
                self.health_checks.pop(service, None)
            else:
                self.health_checks[service] = check

    def everything(self) -> TableChanges:
        """Return the change that makes an empty table equal to this one."""
        return TableChanges(
            family=self.family,
            rules=self.rules,
            service_ports=dict(self.service_ports),
            cluster_ips=dict.fromkeys(self.cluster_ips, True),
            health_checks=dict(self.health_checks),
        )

    def _index(self, entry: ServicePort) -> None:
        protocol = entry.key.protocol
        for frontend in entry.frontends:
            if isinstance(frontend, NodePort):
                self.node_ports[protocol, frontend.port] = entry.key
            else:
                where = (frontend.address, protocol, frontend.port)
                self.vips[where] = (entry.key, frontend.via)

    def _unindex(self, entry: ServicePort) -> None:
        protocol = entry.key.protocol
        for frontend in entry.frontends:
            if isinstance(frontend, NodePort):
                self.node_ports.pop((protocol, frontend.port), None)
            else:
                self.vips.pop((frontend.address, protocol, frontend.port), None)
