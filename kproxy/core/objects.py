"""The API objects, reduced to the fields that decide where a packet goes.

All addresses and networks are canonical text; every object here is valid by construction
(`kproxy.core.parse` makes them and refuses the rest).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from kproxy.core.addresses import Family, Network


class Kind(enum.Enum):
    """The kinds of API object that a source delivers."""

    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"
    NODE = "Node"
    SERVICE_CIDR = "ServiceCIDR"


class Protocol(enum.Enum):
    """A transport protocol, by its API name."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"

    __hash__ = object.__hash__  # an Enum's own is written in Python


class ObjectKey(NamedTuple):
    """Identifies an object of one kind; cluster-scoped kinds have the namespace ""."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NotProxied(enum.Enum):
    """Why a valid Service is none of our business."""

    EXTERNAL_NAME = "type ExternalName"
    HEADLESS = "headless (clusterIP None)"
    OTHER_PROXY = "label service.kubernetes.io/service-proxy-name names another proxy"
    NO_CLUSTER_IP = "no clusterIP has been allocated"


class PortSpec(NamedTuple):
    """One entry of `spec.ports`; `node_port` 0 means that none is allocated."""

    name: str
    protocol: Protocol
    port: int
    node_port: int


@dataclass(frozen=True, slots=True)
class Service:
    """A `v1 Service`.

    `load_balancer_ips` are the status addresses whose ipMode is VIP. `external_local` and
    `internal_local` say that the traffic policy is Local where it has an effect (reference 1.1).
    `health_check_node_port` 0 means none. `unusable` are load-balancer addresses that are left out,
    as they are the node's own; an API server takes them.
    """

    key: ObjectKey
    not_proxied: NotProxied | None
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[Network, ...]
    ports: tuple[PortSpec, ...]
    internal_local: bool
    external_local: bool
    affinity_timeout_s: int | None
    health_check_node_port: int
    unusable: tuple[str, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One endpoint of a slice. `node` and `zone_hints`/`node_hints` are empty where unset.

    There are hundreds of thousands, so this is a Struct, of which the garbage collector need not
    know, as it cannot be part of a cycle: made ten times as fast as a frozen dataclass.
    """

    address: str
    node: str
    ready: bool
    serving: bool
    terminating: bool
    zone_hints: tuple[str, ...]
    node_hints: tuple[str, ...]


class EndpointPort(NamedTuple):
    """One port of a slice; entries without name or number never get here."""

    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """A `discovery.k8s.io/v1 EndpointSlice`.

    `family` is None for addressType FQDN, and `service` is None without the
    `kubernetes.io/service-name` label or with the headless label: such a slice is valid and unused.
    `triggered_at` is when the change happened that led to this version, in seconds since the epoch,
    None where nobody said; it decides nothing, so it does not count when slices are compared.
    """

    key: ObjectKey
    service: ObjectKey | None
    family: Family | None
    endpoints: tuple[Endpoint, ...]
    ports: tuple[EndpointPort, ...]
    triggered_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Node:
    """A `v1 Node`: internal addresses before external ones, zone "" if unlabelled.

    `unusable` are texts among its addresses that are none; an API server takes them.
    """

    key: ObjectKey
    zone: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[Network, ...]
    deleting: bool  # has a deletionTimestamp, or the autoscaler's taint
    unusable: tuple[str, ...] = ()

    def address(self, family: Family) -> str | None:
        """Return the node's first address of a family."""
        wanted = family is Family.IPV6
        return next((a for a in self.addresses if (":" in a) == wanted), None)


@dataclass(frozen=True, slots=True)
class ServiceCIDR:
    """A `networking.k8s.io/v1 ServiceCIDR`."""

    key: ObjectKey
    cidrs: tuple[Network, ...]


Object = Service | EndpointSlice | Node | ServiceCIDR

KIND_OF: dict[type[Object], Kind] = {
    Service: Kind.SERVICE,
    EndpointSlice: Kind.ENDPOINT_SLICE,
    Node: Kind.NODE,
    ServiceCIDR: Kind.SERVICE_CIDR,
}


class InvalidObject(Exception):
    """An API object that cannot be used, with the field and value that are wrong.

    `field` is a JSON path without the leading `$.`, for example `spec.ports[0].port`.
    """

    def __init__(self, kind: str, key: ObjectKey, field: str, value: object, why: str) -> None:
        super().__init__(f"{kind} {key}: {field}: {why} (value {value!r})")
        self.kind = kind
        self.key = key
        self.field = field
        self.value = value
        self.why = why
