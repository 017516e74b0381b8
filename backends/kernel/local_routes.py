"""What the kernel delivers to this host: its local routing table. Layout: linux/rtnetlink.h."""

from __future__ import annotations

import errno
import struct
import sys
from typing import NamedTuple

from backends.kernel.netlink import AF, NetlinkRefusal, attributes
from backends.kernel.route_netlink import LOCAL_TABLE, LOCAL_TYPE, Event, Kind, listed
from kproxy.core.addresses import Family

_GET_ROUTES = 26  # RTM_GETROUTE
_HEADER = struct.Struct("=8BI")  # struct rtmsg
_DESTINATION, _OUTPUT, _PRIORITY = 1, 4, 6  # RTA_*
_LENGTH_AT, _TOS_AT, _TABLE_AT, _TYPE_AT = 1, 3, 4, 7  # rtm_dst_len, rtm_tos, …
_CLONED = 0x200  # RTM_F_CLONED: an entry of a cache, no route


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
    request = _HEADER.pack(AF[family], 0, 0, 0, LOCAL_TABLE, 0, 0, LOCAL_TYPE, 0)
    try:
        found = listed(doing, _GET_ROUTES, request, strict=True)
    except NetlinkRefusal as refused:
        if refused.number != errno.ENOENT:
            raise
        return []  # the table is made with the first address, which loopback may be yet to get
    return [_parsed(family, body) for body in found if _is_local(body)]


def changed_route(family: Family, event: Event) -> LocalRoute | None:
    """Return the local route that a message tells of; None for other messages."""
    if event.kind not in (Kind.NEW_ROUTE, Kind.DELETED_ROUTE):
        return None
    if event.body[0] != AF[family] or not _is_local(event.body):
        return None
    return _parsed(family, event.body)


def _is_local(body: bytes) -> bool:
    *_, flags = _HEADER.unpack_from(body)
    local = body[_TABLE_AT] == LOCAL_TABLE and body[_TYPE_AT] == LOCAL_TYPE
    return local and not flags & _CLONED


def _parsed(family: Family, body: bytes) -> LocalRoute:
    found = attributes(body[_HEADER.size :])
    return LocalRoute(
        network=found.get(_DESTINATION, bytes(family.bits // 8)),
        length=body[_LENGTH_AT],
        device=_number(found.get(_OUTPUT)),
        priority=_number(found.get(_PRIORITY)),
        tos=body[_TOS_AT],
    )


def _number(content: bytes | None) -> int:
    return int.from_bytes(content or b"", sys.byteorder)
