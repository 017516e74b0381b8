"""The API's JSON, as far as we read it, with the API's own defaults.

Only shapes are checked here; `kproxy.core.parse` decides what the values mean. A list that the
API allows to be null is `None` here and empty there. `kind` is left out in the items of a list.
"""

from __future__ import annotations

import msgspec

AFFINITY_TIMEOUT_S = 10800


class _Wire(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """Unknown fields are skipped: the API has many that do not matter here."""


class Annotations(_Wire):
    """The one annotation that is read: when the change happened that led to this version."""

    last_change: str | None = msgspec.field(
        name="endpoints.kubernetes.io/last-change-trigger-time", default=None
    )


class Metadata(_Wire):
    name: str = ""
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: Annotations | None = None
    deletion_timestamp: object = None


class ServicePort(_Wire):
    port: int
    name: str | None = None
    protocol: str | None = None
    node_port: int | None = None


class ClientIP(_Wire):
    timeout_seconds: int | None = None


class SessionAffinityConfig(_Wire):
    client_ip: ClientIP | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(_Wire):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    ports: list[ServicePort] | None = None
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    load_balancer_source_ranges: list[str] | None = None
    health_check_node_port: int | None = None


class Ingress(_Wire):
    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(_Wire):
    ingress: list[Ingress] | None = None


class ServiceStatus(_Wire):
    load_balancer: LoadBalancerStatus | None = None


class Service(_Wire):
    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus | None = None
    kind: str | None = None


class Conditions(_Wire):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Named(_Wire):
    name: str


class Hints(_Wire):
    for_zones: list[Named] | None = None
    for_nodes: list[Named] | None = None


class Endpoint(_Wire):
    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    hints: Hints | None = None


class EndpointPort(_Wire):
    name: str | None = ""
    protocol: str | None = "TCP"
    port: int | None = None


class EndpointSlice(_Wire):
    metadata: Metadata
    address_type: str
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
    kind: str | None = None


class NodeAddress(_Wire):
    type: str
    address: str


class Taint(_Wire):
    key: str


class NodeSpec(_Wire):
    pod_cidr: str | None = msgspec.field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    taints: list[Taint] | None = None


class NodeStatus(_Wire):
    addresses: list[NodeAddress] | None = None


class Node(_Wire):
    metadata: Metadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None
    kind: str | None = None


class ServiceCIDRSpec(_Wire):
    cidrs: list[str] | None = None


class ServiceCIDR(_Wire):
    metadata: Metadata
    spec: ServiceCIDRSpec | None = None
    kind: str | None = None
