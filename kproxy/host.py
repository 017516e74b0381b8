"""The addresses of this host, by netlink.

On a bare socket: pyroute2 holds 11 MB of the agent's memory for a question as simple as this.
Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from kproxy.backend import BackendError
from kproxy.core.addresses import Family, canonical_address

_SOCKET_FAMILY = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_GET_ADDRESSES = 22  # RTM_GETADDR
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_STATUS = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")  # length with this header, type
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_BUFFER_BYTES = 1 << 16
_TIMEOUT_S = 10.0
_TRIES = 5  # of a listing that changes of addresses disturb


class _DisturbedError(OSError):
    """Addresses changed while they were listed, so that some may be missing."""


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces, canonical, of this network namespace.

    Needs no privilege. Raises BackendError.
    """
    failure: OSError | None = None
    for _ in range(_TRIES):
        try:
            return frozenset(map(canonical_address, _list(_SOCKET_FAMILY[family])))
        except _DisturbedError as error:
            failure = error
        except OSError as error:
            failure = error
            break
    doing = f"list the host's {family.value} addresses"
    raise BackendError(doing, str(failure), transient=True) from failure


def _list(family: socket.AddressFamily) -> list[str]:
    body = _ADDRESS.pack(family, 0, 0, 0, 0)
    size = _HEADER.size + len(body)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.send(_HEADER.pack(size, _GET_ADDRESSES, _REQUEST | _DUMP, 1, 0) + body)
        return [socket.inet_ntop(family, address) for address in _answers(netlink)]


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    while True:
        data = netlink.recv(_BUFFER_BYTES)
        at = 0
        while at < len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
            if flags & _INTERRUPTED:
                raise _DisturbedError("they changed while they were listed")
            if kind == _ERROR:
                (status,) = _STATUS.unpack_from(data, at + _HEADER.size)
                raise OSError(-status, os.strerror(-status))
            if kind == _DONE:
                return
            yield from _own_address(data[at + _HEADER.size + _ADDRESS.size : at + length])
            at += length + 3 & ~3


def _own_address(attributes: bytes) -> Iterator[bytes]:
    """Yield the address that is ours: on a point-to-point link IFA_ADDRESS is the peer's."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        found[kind] = attributes[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    own = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if own is not None:
        yield own
