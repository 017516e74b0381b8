"""Why a service port has no endpoint to forward to: which slice, port or label is the cause."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from kproxy.core.addresses import Family
from kproxy.core.objects import Endpoint, EndpointSlice, ObjectKey, PortSpec
from kproxy.core.words import quoted

LABEL = "kubernetes.io/service-name"
_MOST_CAUSES = 3  # named; the rest is counted
_MOST_NAMES = 4  # of ports or nodes
_LONGEST = 330  # of a name or reason; namespace and name of a valid object always fit


class LeftOut(NamedTuple):
    """Something that would be a Service, or have endpoints of one, if it was right.

    `service` is the Service that it would be of, None if it does not say. `where` it was found.
    `destinations` are those of a Service: canonical addresses, and NodePorts like ":30080".
    """

    what: str
    key: ObjectKey
    service: ObjectKey | None
    why: str
    where: str = ""
    destinations: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" ({self.where:.{_LONGEST}})" if self.where else ""
        return f"{self.what} {self.key!s:.{_LONGEST}}{where} is left out: {self.why:.{_LONGEST}}"


class Cause(NamedTuple):
    """One cause. `mistake`: somebody has to edit an object; else it is how things are just now."""

    text: str
    mistake: bool


class Strays:
    """Slices that belong to no Service, or whose name begins like another Service's than theirs.

    All slices are looked at once, and only if somebody asks for those of others.
    """

    def __init__(
        self,
        services: Collection[ObjectKey],
        slices: Iterable[EndpointSlice],
        left_out: Iterable[LeftOut] = (),
    ) -> None:
        self._services = services
        self._slices = slices
        self._left_out: dict[ObjectKey, list[LeftOut]] = {}
        for left in left_out:
            if left.destinations:
                continue
            keys = _beginnings(left.key) if left.service is None else {left.service}
            for key in keys:
                self._left_out.setdefault(key, []).append(left)

    @cached_property
    def _astray(self) -> list[tuple[EndpointSlice, ObjectKey]]:
        """The slices, each with the Service that it says it is of."""
        return [
            (each, service)
            for each in self._slices
            if (service := each.service) is not None
            and not (service in self._services and each.key.name.startswith(service.name))
        ]

    @cached_property
    def _elsewhere(self) -> Mapping[str, list[EndpointSlice]]:
        """Slices of Services that are not there, by the name of the Service."""
        found: dict[str, list[EndpointSlice]] = {}
        for each, service in self._astray:
            if service not in self._services:
                found.setdefault(service.name, []).append(each)
        return found

    @cached_property
    def _alike(self) -> Mapping[ObjectKey, list[tuple[EndpointSlice, ObjectKey]]]:
        """Slices by the Services that they may have been meant for."""
        found: dict[ObjectKey, list[tuple[EndpointSlice, ObjectKey]]] = {}
        for each, service in self._astray:
            for key in _beginnings(each.key) | _beginnings(service, letters=True):
                if key != service or service not in self._services:
                    found.setdefault(key, []).append((each, service))
        return found

    def left_out(self, service: ObjectKey) -> list[Cause]:
        """Return what would be a slice of a Service if it was right."""
        return [Cause(str(left), mistake=True) for left in self._left_out.get(service, ())]

    def of_others(self, service: ObjectKey) -> list[Cause]:
        """Return what is a slice of nobody, or of another Service, and most likely of this one."""
        causes = [
            Cause(
                f"EndpointSlice {each.key} has the label {LABEL}: {service.name}, but is not in "
                f"the Service's namespace {service.namespace}",
                mistake=True,
            )
            for each in self._elsewhere.get(service.name, ())
            if each.key.namespace != service.namespace
        ]
        shorter = service._replace(name=service.name[:-1])
        for each, owner in [*self._alike.get(service, ()), *self._alike.get(shorter, ())]:
            what = "another Service" if owner in self._services else "no Service"
            label = f"{LABEL}: {quoted(owner.name)}"
            text = f"EndpointSlice {each.key} has the label {label}, which is {what}"
            causes.append(Cause(f"{text}; for this one write {service.name}", mistake=True))
        return causes


def _beginnings(key: ObjectKey, *, letters: bool = False) -> set[ObjectKey]:
    """Return what a Service may be called whose slice has this name, as `web` of `web-x7k2p`.

    `letters`: what it may be called if the name has other capitals, or a letter too many.
    """
    name = key.name
    if letters:
        return {key._replace(name=each) for each in (name.casefold(), name[:-1])}
    shorter = name.rpartition("-")[0]
    return {key._replace(name=each) for each in (name, shorter, shorter.rpartition("-")[0]) if each}


def no_endpoint(
    service: ObjectKey,
    port: PortSpec,
    family: Family,
    slices: Mapping[ObjectKey, EndpointSlice],
    strays: Strays,
) -> tuple[Cause, ...]:
    """Return why no endpoint of a service port can be used; `slices` are those of its Service."""
    own = [slices[key] for key in sorted(slices)]
    causes = strays.left_out(service)
    causes += _of_own(port, family, own)
    if not own:
        causes += strays.of_others(service)
    if not causes:
        label = f"{LABEL}: {service.name}"
        text = f"no EndpointSlice in namespace {service.namespace} has the label {label}"
        causes.append(Cause(text, mistake=True))
    return _few(list(dict.fromkeys(causes)))


def _few(causes: Sequence[Cause]) -> tuple[Cause, ...]:
    if len(causes) <= _MOST_CAUSES:
        return tuple(causes)
    more = f"and {len(causes) - _MOST_CAUSES} EndpointSlices more"
    return (*causes[:_MOST_CAUSES], Cause(more, mistake=False))


def _of_own(port: PortSpec, family: Family, own: Sequence[EndpointSlice]) -> list[Cause]:
    mine = [each for each in own if each.family is family]
    if not mine:
        return [
            Cause(
                f"EndpointSlice {each.key} has addressType {_type(each)}, and not {family.value}",
                mistake=True,
            )
            for each in own
        ]
    offering = [each for each in mine if _offers(each, port)]
    if not offering:
        return [Cause(_without_port(each, port), mistake=True) for each in mine]
    endpoints = [endpoint for each in offering for endpoint in each.endpoints]
    names = listed(str(each.key) for each in offering)
    if not endpoints:
        return [Cause(f"EndpointSlice {names} has no endpoints", mistake=False)]
    return [Cause(f"{_unready(endpoints)} in EndpointSlice {names}", mistake=False)]


def _offers(each: EndpointSlice, port: PortSpec) -> bool:
    return any((p.name, p.protocol) == (port.name, port.protocol) for p in each.ports)


def _type(each: EndpointSlice) -> str:
    return "FQDN" if each.family is None else each.family.value


def _without_port(each: EndpointSlice, port: PortSpec) -> str:
    if not each.ports:
        return f"EndpointSlice {each.key} has no ports; write those that its endpoints listen at"
    wanted = f"named {port.name}" if port.name else "without a name"
    there = listed(
        f"{quoted(p.name) if p.name else 'one without a name'} {p.protocol.value}"
        for p in each.ports
    )
    return (
        f"EndpointSlice {each.key} has no {port.protocol.value} port {wanted}, as port {port.port} "
        f"of the Service is; it has {there}: name both alike"
    )


def _unready(endpoints: Sequence[Endpoint]) -> str:
    leaving = sum(endpoint.terminating for endpoint in endpoints)
    ending = f" ({leaving} terminating)" if leaving else ""
    if len(endpoints) == 1:
        return f"the only endpoint, {endpoints[0].address}, is not ready{ending}"
    return f"none of the {len(endpoints)} endpoints is ready{ending}"


def none_here(
    port: PortSpec, family: Family, slices: Iterable[EndpointSlice], node_name: str
) -> Cause:
    """Return why none of the endpoints that a service port has is known to be on this node."""
    mine = [each for each in slices if each.family is family and _offers(each, port)]
    endpoints = [e for each in mine for e in each.endpoints if e.ready or e.serving]
    nodes = sorted({endpoint.node for endpoint in endpoints if endpoint.node})
    homeless = sum(not endpoint.node for endpoint in endpoints)
    if not nodes:
        one = homeless == 1
        what = "its only endpoint has" if one else f"its {homeless} endpoints have"
        names = listed(str(each.key) for each in mine if any(not e.node for e in each.endpoints))
        where = "the node that it runs on" if one else "the nodes that they run on"
        return Cause(f"{what} no nodeName in EndpointSlice {names}; write {where}", mistake=True)
    where = f"this is {node_name}, and its endpoints are on {listed(map(quoted, nodes))}"
    return Cause(where + (f" ({homeless} have no nodeName)" if homeless else ""), mistake=False)


def listed(names: Iterable[str]) -> str:
    """Return some names, of many the first ones and how many more there are."""
    every = list(names)
    more = len(every) - _MOST_NAMES
    return ", ".join(every[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
