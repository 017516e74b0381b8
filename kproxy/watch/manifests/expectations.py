"""What a valid object will not do although its author most likely expects it. Pure.

An API server, or whoever writes objects there, would have filled in or refused all of this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kproxy.core.addresses import canonical_address
from kproxy.core.objects import EndpointSlice, Node, NotProxied, Object, Service, ServiceCIDR
from kproxy.core.parse import HEADLESS_LABEL, SERVICE_NAME_LABEL, ZONE_LABEL
from kproxy.core.words import one_of, quoted
from kproxy.watch.manifests.near_misses import meant_word

HOSTNAME_LABEL = "kubernetes.io/hostname"
_OLD_ZONE_LABEL = "failure-domain.beta.kubernetes.io/zone"
_ADDRESS_TYPES = ("InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS")
_MOST_DESTINATIONS = 32  # looked at in one object that is refused
_KNOWN_SERVICE_LABELS = frozenset({SERVICE_NAME_LABEL, "service-name"})

_Numbered = tuple[int, Mapping[str, object]]  # an endpoint and its place in the list


class Remark(NamedTuple):
    """A field, a path without the leading dot, and what to say of it."""

    field: str
    why: str
    value: object = None


def disappointments(made: Object, document: Mapping[str, object]) -> Iterator[Remark]:
    """Yield what is to be said of a valid object; `document` is what it was made of."""
    match made:
        case Service():
            yield from _service(made, document)
        case EndpointSlice():
            yield from _endpoint_slice(made, document)
        case Node():
            yield from _node(document)
        case ServiceCIDR() if not made.cidrs:
            yield Remark("spec.cidrs", "is empty: no address is in this ServiceCIDR")


def _service(service: Service, document: Mapping[str, object]) -> Iterator[Remark]:
    if service.not_proxied is NotProxied.NO_CLUSTER_IP:
        yield Remark(
            "spec.clusterIP", "is not set and nothing allocates one here: not proxied at all"
        )
    if service.not_proxied is not None:
        return
    spec = _mapping(document.get("spec"))
    service_type = spec.get("type")
    wants_node_ports = service_type == "NodePort" or (
        service_type == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    for i, port in enumerate(service.ports):
        if wants_node_ports and not port.node_port:
            field = f"spec.ports[{i}].nodePort"
            yield Remark(field, "is not set and nothing allocates one here: no NodePort")
    if not service.ports:
        yield Remark("spec.ports", "is empty: nothing is served at the clusterIP")
    needs_health_port = service_type == "LoadBalancer" and service.external_local
    if needs_health_port and not service.health_check_node_port:
        yield Remark(
            "spec.healthCheckNodePort",
            "is not set and nothing allocates one here: no health check for the load balancer",
        )
    asked = spec.get("loadBalancerIP")
    if asked and not service.load_balancer_ips:
        why = "is a wish to a load balancer and served by nobody; write status.loadBalancer.ingress"
        yield Remark("spec.loadBalancerIP", why, asked)


def _endpoint_slice(made: EndpointSlice, document: Mapping[str, object]) -> Iterator[Remark]:
    labels = _mapping(_mapping(document.get("metadata")).get("labels"))
    if made.service is None and HEADLESS_LABEL not in labels:
        yield Remark("metadata.labels", _without_service(labels))
    if made.family is None:
        yield Remark("addressType", "FQDN is not used: no Service is forwarded to a name")
    endpoints = [
        (i, each)
        for i, each in enumerate(map(_mapping, _sequence(document.get("endpoints"))))
        if not _is_usual(each)
    ]
    yield from _first_of(_addresses(endpoints))
    yield from _first_of(_topologies(endpoints))
    yield from _first_of(_ports(document))


def without_service(document: Mapping[str, object]) -> str | None:
    """Return why an EndpointSlice belongs to no Service, None if it does or is not meant to."""
    labels = _mapping(_mapping(document.get("metadata")).get("labels"))
    if labels.get(SERVICE_NAME_LABEL) or HEADLESS_LABEL in labels:
        return None
    return _without_service(labels)


def destinations(document: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a Service of any validity claims: addresses, and NodePorts like ":30080"."""
    spec = _mapping(document.get("spec"))
    listed = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("externalIPs"))
    texts = [text for each in listed for text in (each if isinstance(each, list) else [each])]
    ports = [port.get("nodePort") for port in map(_mapping, _sequence(spec.get("ports")))]
    found: dict[str, None] = {}
    for text in texts[:_MOST_DESTINATIONS]:
        with contextlib.suppress(ValueError):
            found[canonical_address(text.strip() if isinstance(text, str) else "")] = None
    numbers = [port for port in ports[:_MOST_DESTINATIONS] if isinstance(port, int | str)]
    return (*found, *(f":{number}" for number in numbers if len(str(number)) <= 5))


def _without_service(labels: Mapping[str, object]) -> str:
    why = f"no {SERVICE_NAME_LABEL}, so it belongs to no Service"
    if SERVICE_NAME_LABEL in labels:
        return f"an empty {SERVICE_NAME_LABEL}, so it belongs to no Service"
    for name in labels:
        ending = name.rpartition("/")[2]
        if meant_word(name, _KNOWN_SERVICE_LABELS) or meant_word(ending, _KNOWN_SERVICE_LABELS):
            return f"{why}; that is what {quoted(name)} was most likely meant to be"
    return why


def _is_usual(endpoint: Mapping[str, object]) -> bool:
    """Say whether there is nothing to look at in an endpoint: there are many of them."""
    one_address = len(_sequence(endpoint.get("addresses"))) == 1
    return one_address and "topology" not in endpoint and "deprecatedTopology" not in endpoint


def _addresses(endpoints: Iterable[_Numbered]) -> Iterator[Remark]:
    for i, endpoint in endpoints:
        addresses = _sequence(endpoint.get("addresses"))
        field = f"endpoints[{i}].addresses"
        if not addresses:
            yield Remark(field, "is empty: this endpoint is not used")
        elif len(addresses) > 1:
            why = f"holds {len(addresses)} addresses, of which the first alone is used"
            yield Remark(field, f"{why}; write an endpoint for each")


def _topologies(endpoints: Iterable[_Numbered]) -> Iterator[Remark]:
    for i, endpoint in endpoints:
        for name in ("topology", "deprecatedTopology"):
            node = _mapping(endpoint.get(name)).get(HOSTNAME_LABEL)
            if node and not endpoint.get("nodeName"):
                why = "does not say on which node the endpoint is"
                if isinstance(node, str):
                    why += f"; write nodeName: {node}" if len(node) < 64 else "; write nodeName"
                yield Remark(f"endpoints[{i}].{name}", why)


def _ports(document: Mapping[str, object]) -> Iterator[Remark]:
    for i, port in enumerate(map(_mapping, _sequence(document.get("ports")))):
        if not port.get("port"):
            yield Remark(f"ports[{i}].port", "is not set: this port is not used")
        elif "name" in port and port["name"] is None:
            why = 'is null: this port is not used; write "" for a port without a name'
            yield Remark(f"ports[{i}].name", why)


def _node(document: Mapping[str, object]) -> Iterator[Remark]:
    labels = _mapping(_mapping(document.get("metadata")).get("labels"))
    if _OLD_ZONE_LABEL in labels and ZONE_LABEL not in labels:
        yield Remark(f"metadata.labels.{_OLD_ZONE_LABEL}", f"is not read; write {ZONE_LABEL}")
    addresses = _sequence(_mapping(document.get("status")).get("addresses"))
    for i, entry in enumerate(map(_mapping, addresses)):
        kind = entry.get("type")
        if isinstance(kind, str) and kind not in _ADDRESS_TYPES:
            field = f"status.addresses[{i}].type"
            yield Remark(field, f"{one_of(kind, _ADDRESS_TYPES)}: this address is not used", kind)


def _first_of(remarks: Iterable[Remark]) -> Iterator[Remark]:
    """Yield the first of many that say nearly the same, and how many more there are."""
    found = list(remarks)
    for first in found[:1]:
        more = f" (and {len(found) - 1} more in this object)" if len(found) > 1 else ""
        yield first._replace(why=f"{first.why}{more}")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
