"""The address that this host speaks to others from. Layout: linux/rtnetlink.h."""

from __future__ import annotations

import errno
import socket

from backends.kernel.netlink import (
    ACK,
    AF,
    REQUEST,
    Netlink,
    NetlinkRefusal,
    attribute,
    attributes,
    message,
)
from backends.kernel.route_netlink import GET_ROUTES, ROUTE, ROUTE_HEADER
from kproxy.core.addresses import Family

_DESTINATION, _SOURCE = 1, 7  # RTA_*
# Or what a route says that makes it unreachable, prohibits it or swallows it.
_NOWHERE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)

# Addresses that nobody has, nor a route of their own: what leads there leads to all others.
_OTHERS = {
    Family.IPV4: socket.inet_pton(socket.AF_INET, "240.0.0.1"),
    Family.IPV6: socket.inet_pton(socket.AF_INET6, "2e00::1"),
}


def source_address(family: Family) -> bytes | None:
    """Return from where the kernel would send to an address that no special route leads to.

    None: no route leads there. Nothing is sent. Raises BackendError.
    """
    header = ROUTE_HEADER.pack(AF[family], family.bits, 0, 0, 0, 0, 0, 0, 0)
    with Netlink(f"looking for the host's {family.value} source address", ROUTE) as netlink:
        request = header + attribute(_DESTINATION, _OTHERS[family])
        netlink.send(message(GET_ROUTES, REQUEST | ACK, request))
        try:
            (found,) = netlink.answers()
        except NetlinkRefusal as refused:
            if refused.number in _NOWHERE:
                return None
            raise
    return attributes(found[ROUTE_HEADER.size :]).get(_SOURCE)
