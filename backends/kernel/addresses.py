"""The addresses of this host, by netlink. Layouts: linux/rtnetlink.h, linux/if_addr.h."""

from __future__ import annotations

import socket
import struct

from backends.kernel.netlink import AF, DUMP, REQUEST, Netlink, NetlinkProtocol, attributes, message
from kproxy.core.addresses import Family, canonical_address
from kproxy.ports.data_path import BackendError

_GET_ADDRESSES = 22  # RTM_GETADDR
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_ROUTE = NetlinkProtocol(socket.NETLINK_ROUTE, _ADDRESS.size)
_TRIES = 5  # of a listing that changes of addresses disturb


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces, canonical, of this network namespace.

    Needs no privilege. Raises BackendError.
    """
    doing = f"list the host's {family.value} addresses"
    request = message(_GET_ADDRESSES, REQUEST | DUMP, _ADDRESS.pack(AF[family], 0, 0, 0, 0))
    with Netlink(doing, _ROUTE) as netlink:
        for _ in range(_TRIES):
            netlink.send(request)
            found = [_own_address(answer) for answer in netlink.answers()]
            if not netlink.interrupted:
                own = (socket.inet_ntop(AF[family], each) for each in found if each is not None)
                return frozenset(map(canonical_address, own))
    raise BackendError(doing, "they changed while they were listed", transient=True)


def _own_address(answer: bytes) -> bytes | None:
    """Return the address that is ours: on a point-to-point link IFA_ADDRESS is the peer's."""
    found = attributes(answer)
    return found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
