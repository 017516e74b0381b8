"""What the kernel delivers to this host: its local routing table. Layout: linux/rtnetlink.h."""

from __future__ import annotations

import sys
from typing import NamedTuple

from backends.kernel.netlink import AF, attributes
from backends.kernel.route_netlink import (
    LOCAL_TABLE,
    LOCAL_TYPE,
    ROUTE_HEADER,
    Event,
    Kind,
    is_cached,
    routes_in,
)
from kproxy.core.addresses import Family

_DESTINATION, _OUTPUT, _PRIORITY = 1, 4, 6  # RTA_*
_LENGTH_AT, _TOS_AT, _TABLE_AT, _TYPE_AT = 1, 3, 4, 7  # rtm_dst_len, rtm_tos, …


class LocalRoute(NamedTuple):
    """A route to the host itself; several may lead to one network, through other devices."""

    network: bytes
    length: int
    device: int
    priority: int
    tos: int


def local_routes(family: Family) -> list[LocalRoute]:
    """Return what counts as local to this network namespace. Raises BackendError.

    Rules of policy routing may deliver other packets too, which makes no address the host's own.
    """
    doing = f"list the host's local {family.value} routes"
    found = routes_in(family, LOCAL_TABLE, LOCAL_TYPE, doing=doing)
    return [_parsed(family, body) for body in found if _is_local(body)]


def changed_route(family: Family, event: Event) -> LocalRoute | None:
    """Return the local route that a message tells of; None for other messages."""
    if event.kind not in (Kind.NEW_ROUTE, Kind.DELETED_ROUTE):
        return None
    if event.body[0] != AF[family] or not _is_local(event.body):
        return None
    return _parsed(family, event.body)


def _is_local(body: bytes) -> bool:
    local = body[_TABLE_AT] == LOCAL_TABLE and body[_TYPE_AT] == LOCAL_TYPE
    return local and not is_cached(body)


def _parsed(family: Family, body: bytes) -> LocalRoute:
    found = attributes(body[ROUTE_HEADER.size :])
    return LocalRoute(
        network=found.get(_DESTINATION, bytes(family.bits // 8)),
        length=body[_LENGTH_AT],
        device=_number(found.get(_OUTPUT)),
        priority=_number(found.get(_PRIORITY)),
        tos=body[_TOS_AT],
    )


def _number(content: bytes | None) -> int:
    return int.from_bytes(content or b"", sys.byteorder)
