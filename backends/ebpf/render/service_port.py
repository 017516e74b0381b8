"""The entries of one service port. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from backends.ebpf.render import layout as abi
from backends.ebpf.render import lists
from backends.ebpf.render.layout import Layout
from backends.ebpf.render.lists import Arranged, Part
from kproxy.core.addresses import Network
from kproxy.core.decision import Decision, Origin, decide
from kproxy.core.image import Key
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    Frontend,
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    Use,
    Via,
    Vip,
)

ADMITTED = bytes([1])
"""The entry of a source range."""

_ORIGINS = (Origin.OUTSIDE, Origin.POD, Origin.NODE)  # as enum origin counts them
_VIA = {via: abi.Via[via.name] for via in Via}
_REFUSED = {Use.REJECT: abi.Use.REJECT, Use.DROP: abi.Use.DROP}

Decisions = dict[bool, tuple[Decision, ...]]  # by whether it is a clusterIP, then by origin


class Drawn(NamedTuple):
    """A service port with what was decided about it; `arranged` is what its frontends lead to."""

    entry: ServicePort
    decisions: Decisions
    arranged: Arranged


def draw(entry: ServicePort, rules: NodeRules, layout: Layout) -> Drawn:
    """Decide for every kind of frontend that a service port has, and arrange what it needs."""
    decisions: Decisions = {}
    for frontend in entry.frontends:
        via = via_of(frontend)
        is_cluster_ip = via is Via.CLUSTER_IP
        if is_cluster_ip not in decisions:
            decisions[is_cluster_ip] = tuple([decide(entry, via, rules, o) for o in _ORIGINS])
    uses = {decision.use for each in decisions.values() for decision in each}
    everywhere = entry.targets if Use.TARGETS in uses else ()
    local = entry.local_targets if Use.LOCAL_TARGETS in uses else ()
    return Drawn(entry, decisions, lists.arrange(layout, everywhere, local))


def frontends(drawn: Drawn, layout: Layout) -> Iterator[tuple[Key, bytes]]:
    """Yield the entries of a service port's frontends."""
    entry, arranged = drawn.entry, drawn.arranged
    service, limited = service_digest(entry.key), entry.sources is not None
    by_origin = {
        kind: b"".join([_decision(layout, each, arranged) for each in decisions])
        for kind, decisions in drawn.decisions.items()
    }
    for frontend in entry.frontends:
        via = via_of(frontend)
        flags = abi.FRONTEND_SOURCES if via is Via.LOAD_BALANCER and limited else 0
        yield (
            frontend_key(frontend, entry.key.protocol, layout),
            layout.frontend.pack(
                service,
                arranged.digest,
                by_origin[via is Via.CLUSTER_IP],
                entry.affinity_timeout_s or 0,
                _VIA[via],
                flags,
            ),
        )


def frontend_key(frontend: Frontend, protocol: Protocol, layout: Layout) -> bytes:
    """Return the image key of a frontend."""
    address = abi.packed(frontend.address) if isinstance(frontend, Vip) else layout.unspecified
    number = abi.PROTOCOL_NUMBER[protocol]
    return layout.frontend_at(address, abi.port_bytes(frontend.port), number)


def own_keys(entry: ServicePort, layout: Layout) -> Iterator[bytes]:
    """Yield the image keys of all that no other service port can have."""
    for frontend in entry.frontends:
        yield frontend_key(frontend, entry.key.protocol, layout)
    yield from source_keys(entry, layout)


def source_keys(entry: ServicePort, layout: Layout) -> Iterator[bytes]:
    """Yield the image keys of who may use a service port's load-balancer addresses."""
    networks = sources(entry)
    if networks:
        service = service_digest(entry.key)
        for network in networks:
            yield layout.source(service, network)


def sources(entry: ServicePort) -> tuple[Network, ...]:
    """Return the networks of a service port that are asked for."""
    limited = any(via_of(each) is Via.LOAD_BALANCER for each in entry.frontends)
    return entry.sources or () if limited else ()


def wants_members(entry: ServicePort) -> bool:
    """Say whether targets are looked for in its list: for affinity, and of UDP by sockets."""
    return entry.affinity_timeout_s is not None or entry.key.protocol is Protocol.UDP


def service_digest(key: ServicePortKey) -> bytes:
    """Return what stands for a service port in the maps; no part of a name has a NUL."""
    name = "\0".join((key.namespace, key.name, key.port, key.protocol.value))
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def refusing(layout: Layout) -> bytes:
    """Return the entry of a wildcard."""
    refused = layout.decision.pack(0, 0, abi.Use.REJECT, 0)
    everyone = refused * len(_ORIGINS)
    return layout.frontend.pack(abi.NO_DIGEST, abi.NO_DIGEST, everyone, 0, abi.Via.CLUSTER_IP, 0)


def via_of(frontend: Frontend) -> Via:
    """Return the kind of a frontend."""
    return Via.NODE_PORT if isinstance(frontend, NodePort) else frontend.via


def _decision(layout: Layout, decision: Decision, arranged: Arranged) -> bytes:
    use, masquerade = decision
    if use in _REFUSED:
        return layout.decision.pack(0, 0, _REFUSED[use], 0)
    part: Part = arranged.everywhere if use is Use.TARGETS else arranged.local
    return layout.decision.pack(*part, abi.Use.FORWARD, masquerade.applies)
