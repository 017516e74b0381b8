"""Where packets go that no other route covers. Layout: linux/rtnetlink.h."""

from __future__ import annotations

from backends.kernel.route_netlink import is_cached, routes_in
from kproxy.core.addresses import Family

_MAIN_TABLE, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST
_LENGTH_AT, _TYPE_AT = 1, 7  # rtm_dst_len, rtm_type


def has_default_route(family: Family) -> bool:
    """Say whether this network namespace has a default route. Raises BackendError."""
    doing = f"list the host's {family.value} routes"
    return any(map(_is_default, routes_in(family, _MAIN_TABLE, _UNICAST, doing=doing)))


def _is_default(body: bytes) -> bool:
    return not body[_LENGTH_AT] and body[_TYPE_AT] == _UNICAST and not is_cached(body)
