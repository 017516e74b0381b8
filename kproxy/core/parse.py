"""API objects from JSON or from plain Python values: parsed once, refused whole if invalid.

What an API server would never have stored is refused here too, because objects may come from
hand-written files. The rules are those of reference/kube-proxy.md 1.1 and of the API's validation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from kproxy.core import wire
from kproxy.core.addresses import (
    Family,
    Network,
    canonical_address,
    canonical_network,
    family_of,
    is_of_the_node,
    is_ordinary_ipv4,
    is_special,
    is_zero,
)
from kproxy.core.misshapen import (
    UNDECODABLE,
    misshapen,
    of_other_kind,
    outline,
    reported_key,
    unencodable,
)
from kproxy.core.objects import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    InvalidObject,
    Kind,
    Node,
    NotProxied,
    Object,
    ObjectKey,
    PortSpec,
    Protocol,
    Service,
    ServiceCIDR,
)
from kproxy.core.words import not_a_name, not_an_address, one_of

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
ZONE_LABEL = "topology.kubernetes.io/zone"
AUTOSCALER_TAINT = "ToBeDeletedByClusterAutoscaler"

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN_CHARACTERS = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?", re.ASCII)

_SPECIAL_ADDRESS = "must not be a zero, loopback or link-local address"
_SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]  # RFC 3339, as the annotation is written

T = TypeVar("T", int, str)
Raw = wire.Service | wire.EndpointSlice | wire.Node | wire.ServiceCIDR


class _Refused(Exception):
    """A wrong value, before it is known to which object it belongs."""

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(field, value, why)
        self.field = field
        self.value = value
        self.why = why

    def inside(self, outer: str) -> _Refused:
        """Return the same for a field of `outer`. (Names of fields are only made up for errors.)"""
        return _Refused(f"{outer}.{self.field}", self.value, self.why)


def kind_of(document: Mapping[str, object]) -> Kind | None:
    """Return the kind of a document by its apiVersion and kind, None if it is none of ours."""
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    return _KINDS.get((version, kind))


def from_builtins(document: Mapping[str, object]) -> Object | None:
    """Return the object that a YAML or JSON document describes, the API's defaults applied.

    Returns None for a kind that is not used here. Raises InvalidObject.
    """
    kind = kind_of(document)
    if kind is None:
        return None
    wire_type, finish = _PARSERS[kind]
    try:
        raw: Raw = msgspec.convert(document, wire_type)
    except msgspec.ValidationError as error:
        raise misshapen(kind, document, error) from error
    except UnicodeEncodeError as error:
        # msgspec wants UTF-8, and has no words for half a pair of surrogates.
        raise unencodable(kind, document, error) from error
    return _finished(kind, raw, finish)


def from_json(kind: Kind, raw: bytes | msgspec.Raw) -> Object:
    """Return the object of a known kind that `raw` holds. Raises InvalidObject.

    An object that says it is of another kind is refused with the field `kind`.
    """
    _, finish = _PARSERS[kind]
    try:
        decoded = _DECODERS[kind].decode(raw)
    except msgspec.ValidationError as error:
        raise misshapen(kind, outline(raw), error) from error
    except UNDECODABLE as error:
        raise InvalidObject(kind.value, ObjectKey("", "?"), "(all)", "", str(error)) from error
    if decoded.kind not in (None, kind.value):
        key = reported_key(kind, decoded.metadata.namespace, decoded.metadata.name)
        raise of_other_kind(kind, key, decoded.kind)
    return _finished(kind, decoded, finish)


def _finished(kind: Kind, raw: Raw, finish: Callable[..., Object]) -> Object:
    try:
        return finish(raw)
    except _Refused as refused:
        key = reported_key(kind, raw.metadata.namespace, raw.metadata.name)
        raise InvalidObject(kind.value, key, refused.field, refused.value, refused.why) from refused


def _service(raw: wire.Service) -> Service:
    key = _namespaced(raw.metadata, _label)
    spec = raw.spec
    kind = spec.type or "ClusterIP"
    if kind not in _SERVICE_TYPES:
        raise _Refused("spec.type", spec.type, one_of(kind, _SERVICE_TYPES))
    cluster_ips, headless = _cluster_ips(spec)
    external_ips = _external_ips(spec)
    external_policy = _policy("spec.externalTrafficPolicy", spec.external_traffic_policy)
    internal_policy = _policy("spec.internalTrafficPolicy", spec.internal_traffic_policy)
    external_local = external_policy == "Local" and (
        kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(external_ips))
    )
    load_balancer_ips, unusable = _load_balancer_ips(raw.status)
    health_port = _port_number(
        "spec.healthCheckNodePort", spec.health_check_node_port or 0, least=0
    )
    return Service(
        key=key,
        not_proxied=_not_proxied(raw, cluster_ips, headless=headless),
        cluster_ips=cluster_ips,
        external_ips=external_ips,
        load_balancer_ips=load_balancer_ips,
        source_ranges=_networks("spec.loadBalancerSourceRanges", spec.load_balancer_source_ranges),
        ports=_service_ports(spec.ports or []),
        internal_local=internal_policy == "Local",
        external_local=external_local,
        affinity_timeout_s=_affinity(spec),
        health_check_node_port=health_port if external_local and kind == "LoadBalancer" else 0,
        unusable=unusable,
    )


def _not_proxied(
    raw: wire.Service, cluster_ips: tuple[str, ...], *, headless: bool
) -> NotProxied | None:
    if OTHER_PROXY_LABEL in (raw.metadata.labels or {}):
        return NotProxied.OTHER_PROXY
    if raw.spec.type == "ExternalName":
        return NotProxied.EXTERNAL_NAME
    if headless:
        return NotProxied.HEADLESS
    return None if cluster_ips else NotProxied.NO_CLUSTER_IP


def _cluster_ips(spec: wire.ServiceSpec) -> tuple[tuple[str, ...], bool]:
    """Return the clusterIPs, at most one of a family, and whether the Service is headless."""
    field = "spec.clusterIPs" if spec.cluster_ips else "spec.clusterIP"
    listed = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    if "None" in (spec.cluster_ip, *listed):
        return (), True
    addresses = tuple(
        _cluster_ip(f"{field}[{i}]" if spec.cluster_ips else field, text)
        for i, text in enumerate(listed)
    )
    if len({family_of(address) for address in addresses}) != len(addresses):
        raise _Refused(field, ", ".join(addresses), "at most one address of each IP family")
    if spec.cluster_ip and addresses[0] != _address("spec.clusterIP", spec.cluster_ip):
        raise _Refused("spec.clusterIPs[0]", addresses[0], f"must be clusterIP {spec.cluster_ip}")
    return addresses, False


def _cluster_ip(field: str, text: str) -> str:
    """Return an address as it may have been allocated: whatever is inside some ServiceCIDR.

    An API server takes any range for one, link-local and even loopback ones, and gives out every
    address of it but the first.
    """
    address = _address(field, text)
    if is_zero(address):
        raise _Refused(field, text, "must not be zero")
    return address


def _external_ips(spec: wire.ServiceSpec) -> tuple[str, ...]:
    addresses = (
        _ordinary_address(f"spec.externalIPs[{i}]", text)
        for i, text in enumerate(spec.external_ips or ())
    )
    return tuple(dict.fromkeys(addresses))


def _service_ports(ports: Sequence[wire.ServicePort]) -> tuple[PortSpec, ...]:
    result = []
    names: set[tuple[str, Protocol]] = set()
    numbers: set[tuple[int, Protocol]] = set()
    node_ports: set[tuple[int, Protocol]] = set()
    for i, raw in enumerate(ports):
        try:
            made = _service_port(raw)
            _once(names, (made.name, made.protocol), "name")
            _once(numbers, (made.port, made.protocol), "port")
            if made.node_port:
                _once(node_ports, (made.node_port, made.protocol), "nodePort")
        except _Refused as refused:
            raise refused.inside(f"spec.ports[{i}]") from refused
        result.append(made)
    return tuple(result)


def _service_port(raw: wire.ServicePort) -> PortSpec:
    name = raw.name or ""
    if name and not _LABEL.fullmatch(name):
        raise _Refused("name", name, not_a_name(name, dots=False))
    return PortSpec(
        sys.intern(name),
        _protocol("protocol", raw.protocol or "TCP"),
        _port_number("port", raw.port),
        _port_number("nodePort", raw.node_port or 0, least=0),
    )


def _once(seen: set[tuple[T, Protocol]], item: tuple[T, Protocol], field: str) -> None:
    if item in seen:
        raise _Refused(field, item[0], f"used twice for {item[1].value} in this Service")
    seen.add(item)


def _affinity(spec: wire.ServiceSpec) -> int | None:
    if spec.session_affinity in (None, "", "None"):
        return None
    if spec.session_affinity != "ClientIP":
        why = one_of(spec.session_affinity, ("ClientIP", "None"))
        raise _Refused("spec.sessionAffinity", spec.session_affinity, why)
    config = spec.session_affinity_config
    timeout_s = config.client_ip.timeout_seconds if config and config.client_ip else None
    if timeout_s is None:
        return wire.AFFINITY_TIMEOUT_S
    if not 1 <= timeout_s <= 86400:
        field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        raise _Refused(field, timeout_s, "must be 1..86400")
    return timeout_s


def _load_balancer_ips(
    status: wire.ServiceStatus | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the addresses whose ipMode is VIP, and those that are the node's own.

    An API server takes these too, and minikube's tunnel says 127.0.0.1: such a frontend would take
    the node's own traffic away, while the rest of the Service is as good as any.
    """
    ingress = status.load_balancer.ingress if status and status.load_balancer else None
    addresses: dict[str, None] = {}
    unusable: dict[str, None] = {}
    for i, entry in enumerate(ingress or []):
        field = f"status.loadBalancer.ingress[{i}]"
        if entry.ip_mode not in (None, "VIP", "Proxy"):
            why = one_of(entry.ip_mode, ("VIP", "Proxy"))
            raise _Refused(f"{field}.ipMode", entry.ip_mode, why)
        if entry.ip and entry.ip_mode != "Proxy":
            address = _address(f"{field}.ip", entry.ip)
            (unusable if is_of_the_node(address) else addresses)[address] = None
    return tuple(addresses), tuple(unusable)


def _endpoint_slice(raw: wire.EndpointSlice) -> EndpointSlice:
    key = _namespaced(raw.metadata, _subdomain)
    if raw.address_type not in _ADDRESS_TYPES:
        why = one_of(raw.address_type, _ADDRESS_TYPES)
        raise _Refused("addressType", raw.address_type, why)
    family = None if raw.address_type == "FQDN" else Family(raw.address_type)
    labels = raw.metadata.labels or {}
    service_name = labels.get(SERVICE_NAME_LABEL, "")
    used = service_name and HEADLESS_LABEL not in labels
    endpoints = [] if family is None else _endpoints(raw.endpoints or [], family)
    return EndpointSlice(
        key=key,
        service=ObjectKey(key.namespace, sys.intern(service_name)) if used else None,
        family=family,
        endpoints=tuple(endpoints),
        ports=tuple(_endpoint_ports(raw.ports or [])),
        triggered_at=_last_change(raw.metadata.annotations),
    )


def _last_change(annotations: wire.Annotations | None) -> float | None:
    """Return the time of the annotation; one that cannot be read costs a measurement, no more."""
    if annotations is None or annotations.last_change is None:
        return None
    try:
        return msgspec.convert(annotations.last_change, _Instant).timestamp()
    except msgspec.ValidationError:
        return None


def _endpoints(endpoints: Sequence[wire.Endpoint], family: Family) -> list[Endpoint]:
    result = []
    for i, raw in enumerate(endpoints):
        if raw.addresses:
            try:
                result.append(_endpoint(raw, raw.addresses[0], family))
            except _Refused as refused:
                raise refused.inside(f"endpoints[{i}]") from refused
    return result


def _endpoint(raw: wire.Endpoint, written: str, family: Family) -> Endpoint:
    address = _ordinary_address("addresses[0]", written)
    if family_of(address) is not family:
        why = f"is no {family.value} address, as addressType says"
        raise _Refused("addresses[0]", written, why)
    conditions = raw.conditions
    hints = raw.hints
    return Endpoint(
        address,
        sys.intern(raw.node_name or ""),
        conditions is None or conditions.ready is not False,
        conditions is None or conditions.serving is not False,
        conditions is not None and conditions.terminating is True,
        _names(hints.for_zones) if hints else (),
        _names(hints.for_nodes) if hints else (),
    )


def _names(named: Sequence[wire.Named] | None) -> tuple[str, ...]:
    return tuple(sys.intern(entry.name) for entry in named or ())


def _endpoint_ports(ports: Sequence[wire.EndpointPort]) -> list[EndpointPort]:
    result = []
    for i, raw in enumerate(ports):
        try:
            protocol = _protocol("protocol", raw.protocol or "TCP")
            port = _port_number("port", raw.port or 0, least=0)
        except _Refused as refused:
            raise refused.inside(f"ports[{i}]") from refused
        if port and raw.name is not None:
            result.append(EndpointPort(sys.intern(raw.name), protocol, port))
    return result


def _node(raw: wire.Node) -> Node:
    spec, status = raw.spec or wire.NodeSpec(), raw.status or wire.NodeStatus()
    pod_cidrs = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
    addresses, unusable = _node_addresses(status.addresses or [])
    return Node(
        key=ObjectKey("", _name(raw.metadata, _subdomain)),
        zone=(raw.metadata.labels or {}).get(ZONE_LABEL, ""),
        addresses=addresses,
        pod_cidrs=_networks("spec.podCIDRs", pod_cidrs),
        deleting=raw.metadata.deletion_timestamp is not None
        or any(taint.key == AUTOSCALER_TAINT for taint in spec.taints or ()),
        unusable=unusable,
    )


def _node_addresses(
    listed: Sequence[wire.NodeAddress],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the addresses, internal before external ones as upstream prefers them, and the rest.

    The rest are texts that are no address, which an API server takes. Some clouds give a node
    without an external address an empty one.
    """
    addresses: dict[str, None] = {}
    unusable: dict[str, None] = {}
    for wanted in ("InternalIP", "ExternalIP"):
        for entry in listed:
            if entry.type == wanted:
                try:
                    addresses[canonical_address(entry.address)] = None
                except ValueError:
                    unusable[entry.address] = None
    return tuple(addresses), tuple(unusable)


def _service_cidr(raw: wire.ServiceCIDR) -> ServiceCIDR:
    spec = raw.spec or wire.ServiceCIDRSpec()
    key = ObjectKey("", _name(raw.metadata, _subdomain))
    return ServiceCIDR(key=key, cidrs=_networks("spec.cidrs", spec.cidrs))


def _name(metadata: wire.Metadata, valid: Callable[[str], bool]) -> str:
    if not valid(metadata.name):
        why = not_a_name(metadata.name, dots=valid is _subdomain)
        raise _Refused("metadata.name", metadata.name, why)
    return metadata.name


def _namespaced(metadata: wire.Metadata, valid: Callable[[str], bool]) -> ObjectKey:
    namespace = "default" if metadata.namespace is None else metadata.namespace
    if not _label(namespace):
        raise _Refused("metadata.namespace", namespace, not_a_name(namespace, dots=False))
    return ObjectKey(sys.intern(namespace), sys.intern(_name(metadata, valid)))


def _label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def _subdomain(text: str) -> bool:
    return _SUBDOMAIN_CHARACTERS.fullmatch(text) is not None and ".." not in text


def _protocol(field: str, text: str) -> Protocol:
    protocol = _PROTOCOLS.get(text)
    if protocol is None:
        raise _Refused(field, text, one_of(text, _PROTOCOLS))
    return protocol


def _policy(field: str, text: str | None) -> str:
    if text and text not in ("Cluster", "Local"):
        raise _Refused(field, text, one_of(text, ("Cluster", "Local")))
    return text or "Cluster"


def _port_number(field: str, number: int, *, least: int = 1) -> int:
    if not least <= number <= 65535:
        raise _Refused(field, number, "must be 1..65535")
    return number


def _address(field: str, text: str) -> str:
    try:
        return canonical_address(text)
    except ValueError as error:
        why = not_an_address(text, may_be_none=field.startswith("spec.clusterIP"))
        raise _Refused(field, text, why) from error


def _ordinary_address(field: str, text: str) -> str:
    """Return an address that may be a pod's or an external IP.

    No API server takes a special one there: as a frontend it would take the node's own loopback or
    multicast traffic away.
    """
    if is_ordinary_ipv4(text):
        return text
    address = _address(field, text)
    if is_special(address):
        raise _Refused(field, text, _SPECIAL_ADDRESS)
    return address


def _networks(field: str, texts: Sequence[str] | None) -> tuple[Network, ...]:
    result = []
    for i, text in enumerate(texts or ()):
        try:
            result.append(canonical_network(text.strip()))
        except ValueError as error:
            raise _Refused(f"{field}[{i}]", text, "is no network in CIDR notation") from error
    return tuple(result)


_KINDS: Mapping[tuple[str, str], Kind] = {
    ("v1", "Service"): Kind.SERVICE,
    ("discovery.k8s.io/v1", "EndpointSlice"): Kind.ENDPOINT_SLICE,
    ("v1", "Node"): Kind.NODE,
    ("networking.k8s.io/v1", "ServiceCIDR"): Kind.SERVICE_CIDR,
}

VERSION_OF = {kind: version for (version, _), kind in _KINDS.items()}

_PARSERS: Mapping[Kind, tuple[type[Raw], Callable[..., Object]]] = {
    Kind.SERVICE: (wire.Service, _service),
    Kind.ENDPOINT_SLICE: (wire.EndpointSlice, _endpoint_slice),
    Kind.NODE: (wire.Node, _node),
    Kind.SERVICE_CIDR: (wire.ServiceCIDR, _service_cidr),
}

# Made before there are threads: two that decode a type first, at once, end the process by a signal.
_DECODERS = {kind: msgspec.json.Decoder(wire_type) for kind, (wire_type, _) in _PARSERS.items()}
