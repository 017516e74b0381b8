"""The addresses of this host, by netlink. Layouts: linux/rtnetlink.h, linux/if_addr.h."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

from backends.kernel.netlink import (
    AF,
    DUMP,
    REQUEST,
    Attributes,
    Netlink,
    NetlinkProtocol,
    attributes,
    message,
    refusal,
)
from kproxy.core.addresses import Family, Network, canonical_address
from kproxy.ports.data_path import BackendError

_GET_ADDRESSES = 22  # RTM_GETADDR
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_ROUTE = NetlinkProtocol(socket.NETLINK_ROUTE, _ADDRESS.size)
_TRIES = 5  # of a listing that changes of addresses disturb
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_EVENT_BYTES = 1 << 12
_LISTENING = "listening for changes of the host's addresses"


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces, canonical, of this network namespace.

    Needs no privilege. Raises BackendError.
    """
    own = (_own_address(found) for _, found in _listed(family))
    texts = (socket.inet_ntop(AF[family], each) for each in own if each is not None)
    return frozenset(map(canonical_address, texts))


def host_networks(family: Family) -> frozenset[Network]:
    """Return the networks that this network namespace is directly connected to.

    They are those around the addresses of its interfaces, and the peers of point-to-point links.
    An address that stands alone is a host's and no network: some bind a clusterIP to a device so.
    Needs no privilege. Raises BackendError.
    """
    networks = set()
    for length, found in _listed(family):
        around = found.get(_IFA_ADDRESS)
        alone = length == family.bits and around == _own_address(found)
        if around is not None and length and not alone:
            networks.add(ipaddress.ip_network((around, length), strict=False))
    return frozenset(networks)


class AddressEvents:
    """Tells that addresses of this host came or went: `fileno` is readable then. For one thread."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            self._socket.bind((0, _GROUPS))
        except OSError as error:
            raise refusal(_LISTENING, error.errno or 0) from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take what has been told; what was lost for want of room counts as told.

        Raises BackendError.
        """
        while True:
            try:
                self._socket.recv(_EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # which is told once
                    raise refusal(_LISTENING, error.errno or 0) from error

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _listed(family: Family) -> list[tuple[int, Attributes]]:
    """Return the prefix length and the attributes of every address."""
    doing = f"list the host's {family.value} addresses"
    request = message(_GET_ADDRESSES, REQUEST | DUMP, _ADDRESS.pack(AF[family], 0, 0, 0, 0))
    with Netlink(doing, _ROUTE) as netlink:
        for _ in range(_TRIES):
            netlink.send(request)
            found = list(_entries(netlink))
            if not netlink.interrupted:
                return found
    raise BackendError(doing, "they changed while they were listed", transient=True)


def _entries(netlink: Netlink) -> Iterator[tuple[int, Attributes]]:
    for data, start, end in netlink.parts():
        _, length, _, _, _ = _ADDRESS.unpack_from(data, start - _ADDRESS.size)
        yield length, attributes(data[start:end])


def _own_address(found: Attributes) -> bytes | None:
    """Return the address that is ours: on a point-to-point link IFA_ADDRESS is the peer's."""
    return found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
