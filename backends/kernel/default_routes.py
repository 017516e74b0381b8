"""Where packets go that no other route covers. Layout: linux/rtnetlink.h."""

from __future__ import annotations

import errno
import struct

from backends.kernel.netlink import AF, NetlinkRefusal
from backends.kernel.route_netlink import listed
from kproxy.core.addresses import Family

_GET_ROUTES = 26  # RTM_GETROUTE
_HEADER = struct.Struct("=8BI")  # struct rtmsg
_MAIN_TABLE, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST
_LENGTH_AT, _TYPE_AT = 1, 7  # rtm_dst_len, rtm_type
_CLONED = 0x200  # RTM_F_CLONED: an entry of a cache, no route


def has_default_route(family: Family) -> bool:
    """Say whether this network namespace has a default route. Raises BackendError."""
    doing = f"list the host's {family.value} routes"
    request = _HEADER.pack(AF[family], 0, 0, 0, _MAIN_TABLE, 0, 0, _UNICAST, 0)
    try:
        found = listed(doing, _GET_ROUTES, request, strict=True)
    except NetlinkRefusal as refused:
        if refused.number != errno.ENOENT:
            raise
        return False  # the table is made with the first route
    return any(map(_is_default, found))


def _is_default(body: bytes) -> bool:
    *_, flags = _HEADER.unpack_from(body)
    return not body[_LENGTH_AT] and body[_TYPE_AT] == _UNICAST and not flags & _CLONED
