"""One service port's virtual servers, and what the sets hold of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backends.ipvs.render.entries import (
    WEIGHT,
    Place,
    destination_key,
    mark_bytes,
    marked_bytes,
    member_key,
    place_bytes,
    server_key,
    source_bytes,
)
from backends.ipvs.render.sets import SetKind
from kproxy.core.image import Key
from kproxy.core.table import ServicePort, Target, Use, Via

_PERSISTENT, HASH_PORTS_TOO = 0x1, 0x10  # IP_VS_SVC_F_PERSISTENT, IP_VS_SVC_F_SCHED_MH_PORT
HASHING = "mh"
"""The scheduler by which the client's address decides."""


@dataclass(frozen=True, slots=True)
class Options:
    """How endpoints are chosen.

    - `scheduler` is the kernel's name of it, as an operator chose.
    - `hashes`: the kernel can choose by a hash of the client's address, too.
    """

    scheduler: str = "rr"
    hashes: bool = True


def wants_mark(entry: ServicePort) -> bool:
    """Say whether some clients are led to other endpoints than the rest, at the same address."""
    has_external = any(via is not Via.CLUSTER_IP for via, _ in entry.by_kind())
    return entry.external_local and has_external and entry.external is not Use.REJECT


def entries(
    entry: ServicePort,
    places: Iterable[tuple[Via, Place]],
    mark: int | None,
    options: Options,
) -> Iterator[tuple[Key, bytes]]:
    """Yield all that the kernel holds of a service port which is met at these places."""
    if mark is not None:
        server = marked_bytes(mark)
        yield server_key(server), _marked_value(entry, options)
        yield from _destinations(server, entry.targets)
    for via, place in places:
        yield from _memberships(entry, via, place, mark)
        use = entry.internal if via is Via.CLUSTER_IP else entry.external
        if use in (Use.TARGETS, Use.LOCAL_TARGETS):
            server = place_bytes(place)
            yield server_key(server), _value(entry, options)
            local = use is Use.LOCAL_TARGETS
            yield from _destinations(server, entry.local_targets if local else entry.targets)


def _memberships(
    entry: ServicePort, via: Via, place: Place, mark: int | None
) -> Iterator[tuple[Key, bytes]]:
    element = place_bytes(place)
    if via is Via.CLUSTER_IP:
        use, kind, value = entry.internal, SetKind.CLUSTER_IP, b""
    elif mark is not None:
        use, kind, value = entry.external, SetKind.LOCAL_POLICY, mark_bytes(mark)
    else:
        use, kind, value = entry.external, SetKind.CLUSTER_POLICY, b""
    yield member_key(kind, element), value
    if use is Use.REJECT:
        yield member_key(SetKind.REFUSED, element), b""
    elif use is Use.DROP:
        yield member_key(SetKind.DROPPED, element), b""
    if via is Via.LOAD_BALANCER and entry.sources is not None:
        yield member_key(SetKind.RESTRICTED, element), b""
        for network in entry.sources:
            yield member_key(SetKind.ADMITTED, source_bytes(place, network)), b""


def _destinations(server: bytes, targets: Iterable[Target]) -> Iterator[tuple[Key, bytes]]:
    for target in targets:
        yield destination_key(server, target.address, target.port), WEIGHT


def _value(entry: ServicePort, options: Options) -> bytes:
    persistent = entry.affinity_timeout_s is not None
    flags = _flags(options.scheduler) | (_PERSISTENT if persistent else 0)
    return _text(options.scheduler, flags, entry.affinity_timeout_s or 0)


def _marked_value(entry: ServicePort, options: Options) -> bytes:
    """Return the value of a virtual server of a mark.

    A persistent one sends connections to the port that the client asked for, not to that of the
    endpoint (ip_vs_sched_persist). So with affinity the client's address decides who serves it.
    """
    if entry.affinity_timeout_s is not None and options.hashes:
        return _text(HASHING, 0, 0)
    return _text(options.scheduler, _flags(options.scheduler), 0)


def _flags(scheduler: str) -> int:
    return HASH_PORTS_TOO if scheduler == HASHING else 0


def _text(scheduler: str, flags: int, timeout_s: int) -> bytes:
    return f"{scheduler}:{flags}:{timeout_s}".encode()
