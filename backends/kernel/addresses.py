"""The addresses of this host, by netlink. Layouts: linux/rtnetlink.h, linux/if_addr.h."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from enum import IntFlag
from typing import NamedTuple

from backends.kernel.netlink import AF, Attributes, NetlinkRefusal, attributes, refusal
from backends.kernel.route_netlink import Event, Kind, listed
from kproxy.core.addresses import Family, Network, canonical_address

_GET_ADDRESSES = 22  # RTM_GETADDR
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_EVENT_BYTES = 1 << 12
_LISTENING = "listening for changes of the host's addresses"


class AddressFlag(IntFlag):
    """IFA_F_*: those that matter here."""

    SECONDARY = 1 << 0  # IPv4: not the first of its network; IPv6: a temporary one
    OPTIMISTIC = 1 << 2
    DUPLICATE = 1 << 3
    DEPRECATED = 1 << 5
    TENTATIVE = 1 << 6


class InterfaceAddress(NamedTuple):
    """An address of a device; `network` with `length` is what is directly connected to it.

    `scope` is a number of RT_SCOPE_*.
    """

    device: int
    address: bytes
    network: bytes
    length: int
    scope: int
    flags: int


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


def interface_addresses(family: Family, device: int = 0) -> list[InterfaceAddress]:
    """Return the addresses of all devices, or of one, in the kernel's own order.

    A device that is gone has none. Needs no privilege. Raises BackendError.
    """
    request = _ADDRESS.pack(AF[family], 0, 0, 0, device)
    try:
        found = listed(_doing(family), _GET_ADDRESSES, request, strict=True)
    except NetlinkRefusal as refused:
        if refused.number == errno.ENODEV and device:
            return []
        raise
    return list(map(_interface_address, found))


def address_device(event: Event) -> int | None:
    """Return the device of the address that a message tells of; None for other messages."""
    if event.kind not in (Kind.NEW_ADDRESS, Kind.DELETED_ADDRESS):
        return None
    return int(_ADDRESS.unpack_from(event.body)[4])


def lost_address(event: Event) -> bytes | None:
    """Return the address that a message says is gone; None for other messages."""
    if event.kind != Kind.DELETED_ADDRESS:
        return None
    return _own_address(attributes(event.body[_ADDRESS.size :]))


def _interface_address(body: bytes) -> InterfaceAddress:
    _, length, flags, scope, device = _ADDRESS.unpack_from(body)
    found = attributes(body[_ADDRESS.size :])
    if _IFA_FLAGS in found:
        flags = int.from_bytes(found[_IFA_FLAGS], sys.byteorder)
    own = _own_address(found) or b""
    return InterfaceAddress(device, own, found.get(_IFA_ADDRESS, own), length, scope, flags)


def _listed(family: Family) -> Iterator[tuple[int, Attributes]]:
    """Yield the prefix length and the attributes of every address."""
    request = _ADDRESS.pack(AF[family], 0, 0, 0, 0)
    for body in listed(_doing(family), _GET_ADDRESSES, request, strict=False):
        _, length, _, _, _ = _ADDRESS.unpack_from(body)
        yield length, attributes(body[_ADDRESS.size :])


def _doing(family: Family) -> str:
    return f"list the host's {family.value} addresses"


def _own_address(found: Attributes) -> bytes | None:
    """Return the address that is ours: on a point-to-point link IFA_ADDRESS is the peer's."""
    return found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
