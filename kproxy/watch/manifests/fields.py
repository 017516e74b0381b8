"""Names of fields that the API does not have and that were most likely meant to be others. Pure.

The API server would say so ("strict decoding"). Here as there such a field has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kproxy.core.objects import Kind
from kproxy.watch.manifests.near_misses import meant_word


@dataclass(frozen=True, slots=True)
class _Level:
    """A mapping of the API: all fields that it has, and what those below hold that are read."""

    known: frozenset[str]
    below: Mapping[str, _Level] = field(default_factory=dict)


class Misnamed(NamedTuple):
    """A field that has no effect. `path` begins with a dot or a bracket."""

    path: str
    why: str


def misnamed(kind: Kind, document: Mapping[str, object]) -> Iterator[Misnamed]:
    """Yield the fields of a document whose name is nearly that of another, or in another place."""
    top = _LEVELS[kind]
    if _is_known(document, top):  # the usual case, in a third of the time
        return
    for path, name, level in _unknown(document, top):
        meant = meant_word(name, level.known)
        if name != name.strip():
            why = "begins or ends with a character that looks like a blank and is none"
            yield Misnamed(f"{path}.{name}", f"{why}; write it anew")
        elif meant is not None:
            yield Misnamed(f"{path}.{name}", f"is no field and has no effect; write {meant}")
        elif place := _PLACES[kind].get(name):
            where = place if " " in place else f"it belongs into {place}"
            yield Misnamed(f"{path}.{name}", f"has no effect here; {where}")


def _is_known(value: object, level: _Level) -> bool:
    """Say whether every field is one that its level has."""
    if not isinstance(value, dict):
        return True
    if not level.known.issuperset(value):
        return False
    for name, lower in level.below.items():
        child = value.get(name)
        if isinstance(child, list):
            if not all([_is_known(entry, lower) for entry in child]):
                return False
        elif child is not None and not _is_known(child, lower):
            return False
    return True


def _unknown(value: object, level: _Level) -> Iterator[tuple[str, str, _Level]]:
    """Yield every field that its level does not have: where, its name, and that level."""
    if not isinstance(value, dict):
        return
    if not level.known.issuperset(value):
        for name in sorted(value.keys() - level.known):
            yield "", name, level
    for name, lower in level.below.items():
        child = value.get(name)
        if isinstance(child, list):
            for i, entry in enumerate(child):
                for path, unknown, at in _unknown(entry, lower):
                    yield f".{name}[{i}]{path}", unknown, at
        elif child is not None:
            for path, unknown, at in _unknown(child, lower):
                yield f".{name}{path}", unknown, at


def _level(known: str, **below: _Level) -> _Level:
    return _Level(frozenset(known.split()) | below.keys(), below)


_METADATA = _level(
    "name namespace labels annotations generateName uid resourceVersion generation selfLink "
    "creationTimestamp deletionTimestamp deletionGracePeriodSeconds ownerReferences finalizers "
    "managedFields clusterName"
)
_SERVICE = _level(
    "apiVersion kind",
    metadata=_METADATA,
    spec=_level(
        "selector clusterIP clusterIPs type externalIPs sessionAffinity loadBalancerIP "
        "loadBalancerSourceRanges externalName externalTrafficPolicy healthCheckNodePort "
        "publishNotReadyAddresses ipFamilies ipFamilyPolicy allocateLoadBalancerNodePorts "
        "loadBalancerClass internalTrafficPolicy trafficDistribution ipFamily topologyKeys",
        ports=_level("name protocol appProtocol port targetPort nodePort"),
        sessionAffinityConfig=_level("", clientIP=_level("timeoutSeconds")),
    ),
    status=_level(
        "conditions",
        loadBalancer=_level("", ingress=_level("ip hostname ipMode ports")),
    ),
)
_ENDPOINT_SLICE = _level(
    "apiVersion kind addressType",
    metadata=_METADATA,
    endpoints=_level(
        "addresses hostname targetRef deprecatedTopology nodeName zone topology",
        conditions=_level("ready serving terminating"),
        hints=_level("forZones forNodes"),
    ),
    ports=_level("name protocol appProtocol port"),
)
_NODE = _level(
    "apiVersion kind",
    metadata=_METADATA,
    spec=_level("podCIDR podCIDRs providerID unschedulable taints configSource externalID"),
    status=_level(
        "capacity allocatable phase conditions daemonEndpoints nodeInfo images volumesInUse "
        "volumesAttached config runtimeHandlers features declaredFeatures",
        addresses=_level("type address"),
    ),
)
_SERVICE_CIDR = _level(
    "apiVersion kind", metadata=_METADATA, spec=_level("cidrs"), status=_level("conditions")
)
_LEVELS = {
    Kind.SERVICE: _SERVICE,
    Kind.ENDPOINT_SLICE: _ENDPOINT_SLICE,
    Kind.NODE: _NODE,
    Kind.SERVICE_CIDR: _SERVICE_CIDR,
}

# Where a field belongs that stands in another place; names that several places have are left out.
_PLACES: Mapping[Kind, Mapping[str, str]] = {
    Kind.SERVICE: {
        **dict.fromkeys(
            ("targetPort", "nodePort", "appProtocol", "port", "protocol"), "spec.ports"
        ),
        "timeoutSeconds": "spec.sessionAffinityConfig.clientIP",
        "ingress": "status.loadBalancer",
        "loadBalancer": "status",
        **dict.fromkeys(("labels", "annotations", "namespace"), "metadata"),
        **dict.fromkeys(_SERVICE.below["spec"].known - {"selector"}, "spec"),
    },
    Kind.ENDPOINT_SLICE: {
        **dict.fromkeys(("ready", "serving", "terminating"), "endpoints[].conditions"),
        **dict.fromkeys(("forZones", "forNodes"), "endpoints[].hints"),
        **dict.fromkeys(("addresses", "nodeName", "conditions", "hints"), "endpoints"),
        **dict.fromkeys(("port", "protocol", "appProtocol"), "ports"),
        **dict.fromkeys(("labels", "annotations", "namespace"), "metadata"),
        **dict.fromkeys(("addressType", "endpoints"), "it stands at the top of an EndpointSlice"),
        "subsets": "an EndpointSlice has endpoints and ports",
        "spec": "addressType, endpoints and ports stand at the top of an EndpointSlice",
    },
    Kind.NODE: {
        **dict.fromkeys(("podCIDR", "podCIDRs", "taints"), "spec"),
        "addresses": "status",
        **dict.fromkeys(("labels", "annotations"), "metadata"),
    },
    Kind.SERVICE_CIDR: {"cidrs": "spec"},
}
