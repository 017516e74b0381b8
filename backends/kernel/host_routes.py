"""Routes of ours to the host itself: what is sent to some addresses belongs to one of its devices.

Layout: linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backends.kernel.netlink import (
    AF,
    CREATE,
    REPLACE,
    NetlinkRefusal,
    attribute,
    attributes,
)
from backends.kernel.route_netlink import (
    GET_ROUTES,
    LOCAL_TABLE,
    LOCAL_TYPE,
    ROUTE_HEADER,
    Event,
    Kind,
    RouteWriter,
    listed,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_NEW, _DELETE = 24, 25  # RTM_*ROUTE
_DESTINATION, _OUTPUT, _PRIORITY, _SOURCE, _TABLE = 1, 4, 6, 7, 15  # RTA_*
_LENGTH_AT, _TOS_AT, _PROTOCOL_AT, _TYPE_AT = 1, 3, 5, 7  # rtm_dst_len, rtm_tos, …
_HOST_SCOPE = 254  # RT_SCOPE_HOST
_UNTOLD = 0  # rtm_table has 8 bits only
_OF_THE_KERNEL = 2  # RTPROT_KERNEL: it made the route for an address
_NOT_THERE = (errno.ESRCH, errno.ENODEV)

# The device is gone or down, or the source is no address of the host any more.
_OVERTAKEN = (errno.ENODEV, errno.ENETDOWN, errno.EINVAL)


class HostRoute(NamedTuple):
    """A route to one address; `source`: from which one the host speaks to it, b"" for any.

    `priority` and `protocol` tell whose it is: no one else's has such a priority.
    """

    address: bytes
    source: bytes
    priority: int
    protocol: int
    table: int = LOCAL_TABLE
    tos: int = 0


class HostRoutes:
    """The routes of one family in this network namespace. For one thread.

    Any call but `close` may raise BackendError. `writer` may serve to write other objects too.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self.writer = RouteWriter(f"writing local {family.value} routes")

    def put(self, device: int, routes: Iterable[HostRoute]) -> None:
        """Make routes; one to the same address with the same priority is replaced."""
        bodies = [self._body(device, route) for route in routes]
        refused = self.writer.ask(_NEW, CREATE | REPLACE, bodies)
        if refused:
            error = self.writer.refusal(refused[0])
            detail = f"{len(refused)} of {len(bodies)} refused, the first one: {error.detail}"
            passing = error.transient or error.number in _OVERTAKEN
            raise BackendError(error.doing, detail, transient=passing)

    def delete(self, device: int, routes: Iterable[HostRoute]) -> None:
        """Remove routes, as far as they are there."""
        bodies = [self._body(device, route) for route in routes]
        refused = [code for code in self.writer.ask(_DELETE, 0, bodies) if code not in _NOT_THERE]
        if refused:
            raise self.writer.refusal(refused[0])

    def close(self) -> None:
        """Let go of the socket."""
        self.writer.close()

    def _body(self, device: int, route: HostRoute) -> bytes:
        header = ROUTE_HEADER.pack(
            *(AF[self._family], self._family.bits, 0, route.tos),
            *(_UNTOLD, route.protocol, _HOST_SCOPE, LOCAL_TYPE, 0),
        )
        return (
            header
            + attribute(_DESTINATION, route.address)
            + _word(_OUTPUT, device)
            + _word(_PRIORITY, route.priority)
            + _word(_TABLE, route.table)
            + (attribute(_SOURCE, route.source) if route.source else b"")
        )


def routes_on(family: Family, device: int, *, table: int = LOCAL_TABLE) -> Iterator[HostRoute]:
    """Yield the routes of a table to single addresses on a device, save those of its own addresses.

    Raises BackendError.
    """
    doing = f"listing the local {family.value} routes of device {device}"
    header = ROUTE_HEADER.pack(AF[family], 0, 0, 0, _UNTOLD, 0, 0, LOCAL_TYPE, 0)
    request = header + _word(_OUTPUT, device) + _word(_TABLE, table)
    try:
        found = listed(doing, GET_ROUTES, request, strict=True)
    except NetlinkRefusal as refused:
        if refused.number not in (errno.ENODEV, errno.ENOENT):  # no such device, no table yet
            raise
        return
    for body in found:
        if body[_LENGTH_AT] == family.bits and body[_PROTOCOL_AT] != _OF_THE_KERNEL:
            yield _parsed(body)


def routed_device(family: Family, event: Event) -> int | None:
    """Return to which device leads the local route that a message tells of, of whichever table.

    None for other messages, and for routes that the kernel made for an address.
    """
    if event.kind not in (Kind.NEW_ROUTE, Kind.DELETED_ROUTE):
        return None
    if event.body[0] != AF[family] or event.body[_TYPE_AT] != LOCAL_TYPE:
        return None
    if event.body[_PROTOCOL_AT] == _OF_THE_KERNEL:
        return None
    return _number(attributes(event.body[ROUTE_HEADER.size :]).get(_OUTPUT))


def _parsed(body: bytes) -> HostRoute:
    found = attributes(body[ROUTE_HEADER.size :])
    return HostRoute(
        address=found[_DESTINATION],
        source=found.get(_SOURCE, b""),
        priority=_number(found.get(_PRIORITY)),
        protocol=body[_PROTOCOL_AT],
        table=_number(found.get(_TABLE)),
        tos=body[_TOS_AT],
    )


def _number(content: bytes | None) -> int:
    return int.from_bytes(content or b"", sys.byteorder)


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, sys.byteorder))
