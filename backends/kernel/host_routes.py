"""Routes of ours to the host itself: what is sent to some addresses belongs to one of its devices.

Layout: linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import itertools
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from backends.kernel.netlink import (
    ACK,
    AF,
    CREATE,
    REQUEST,
    Netlink,
    NetlinkRefusal,
    attribute,
    attributes,
    message,
)
from backends.kernel.route_netlink import LOCAL_TABLE, LOCAL_TYPE, ROUTE, listed
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_NEW, _DELETE, _GET = 24, 25, 26  # RTM_*ROUTE
_REPLACE = 0x100  # NLM_F_REPLACE
_HEADER = struct.Struct("=8BI")  # struct rtmsg
_DESTINATION, _OUTPUT, _PRIORITY, _SOURCE = 1, 4, 6, 7  # RTA_*
_LENGTH_AT, _TOS_AT, _PROTOCOL_AT = 1, 3, 5  # rtm_dst_len, rtm_tos, rtm_protocol
_HOST_SCOPE = 254  # RT_SCOPE_HOST
_OF_THE_KERNEL = 2  # RTPROT_KERNEL: it made the route for an address
_AT_ONCE = 128  # requests; if all are refused, the answers fit into the smallest receive buffer
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
    tos: int = 0


class HostRoutes:
    """The routes of one family in the local table of this network namespace. For one thread.

    Any call but `close` may raise BackendError. `port` is that of all messages about our writes.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._netlink = Netlink(f"writing local {family.value} routes", ROUTE)
        self._numbers = itertools.count(1)
        self.port = self._netlink.port()

    def put(self, device: int, routes: Iterable[HostRoute]) -> None:
        """Make routes; one to the same address with the same priority is replaced."""
        bodies = [self._body(device, route) for route in routes]
        refused = self._ask(_NEW, CREATE | _REPLACE, bodies)
        if refused:
            error = self._netlink.refusal(refused[0])
            detail = f"{len(refused)} of {len(bodies)} refused, the first one: {error.detail}"
            passing = error.transient or error.number in _OVERTAKEN
            raise BackendError(error.doing, detail, transient=passing)

    def delete(self, device: int, routes: Iterable[HostRoute]) -> None:
        """Remove routes, as far as they are there."""
        bodies = [self._body(device, route) for route in routes]
        refused = [code for code in self._ask(_DELETE, 0, bodies) if code not in _NOT_THERE]
        if refused:
            raise self._netlink.refusal(refused[0])

    def close(self) -> None:
        """Let go of the socket."""
        self._netlink.close()

    def _ask(self, kind: int, flags: int, bodies: Collection[bytes]) -> list[int]:
        """Return the error numbers of the requests that are refused.

        Of many requests the last alone is answered in any case.
        """
        refused = []
        left = iter(bodies)
        while some := list(itertools.islice(left, _AT_ONCE)):
            numbers = list(itertools.islice(self._numbers, len(some)))
            self._netlink.send(
                b"".join(
                    message(
                        kind,
                        REQUEST | flags | (ACK if number == numbers[-1] else 0),
                        body,
                        sequence=number,
                    )
                    for number, body in zip(numbers, some, strict=True)
                )
            )
            for number, code in self._netlink.outcomes():
                if code:
                    refused.append(code)
                if number == numbers[-1]:
                    break
        return refused

    def _body(self, device: int, route: HostRoute) -> bytes:
        header = _HEADER.pack(
            *(AF[self._family], self._family.bits, 0, route.tos),
            *(LOCAL_TABLE, route.protocol, _HOST_SCOPE, LOCAL_TYPE, 0),
        )
        return (
            header
            + attribute(_DESTINATION, route.address)
            + _word(_OUTPUT, device)
            + _word(_PRIORITY, route.priority)
            + (attribute(_SOURCE, route.source) if route.source else b"")
        )


def routes_on(family: Family, device: int) -> Iterator[HostRoute]:
    """Yield the routes to single addresses on a device, save those of its own addresses.

    Raises BackendError.
    """
    doing = f"listing the local {family.value} routes of device {device}"
    request = _HEADER.pack(AF[family], 0, 0, 0, LOCAL_TABLE, 0, 0, LOCAL_TYPE, 0)
    try:
        found = listed(doing, _GET, request + _word(_OUTPUT, device), strict=True)
    except NetlinkRefusal as refused:
        if refused.number not in (errno.ENODEV, errno.ENOENT):  # no such device, no table yet
            raise
        return
    for body in found:
        if body[_LENGTH_AT] == family.bits and body[_PROTOCOL_AT] != _OF_THE_KERNEL:
            yield _parsed(body)


def _parsed(body: bytes) -> HostRoute:
    found = attributes(body[_HEADER.size :])
    return HostRoute(
        address=found[_DESTINATION],
        source=found.get(_SOURCE, b""),
        priority=int.from_bytes(found.get(_PRIORITY, b""), sys.byteorder),
        protocol=body[_PROTOCOL_AT],
        tos=body[_TOS_AT],
    )


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, sys.byteorder))
