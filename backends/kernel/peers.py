"""What a network namespace has, and how it is joined to another one.

Layouts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

from backends.kernel.netlink import (
    AF,
    DUMP,
    REQUEST,
    Attributes,
    Netlink,
    NetlinkProtocol,
    attribute,
    attributes,
    message,
    text,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_GET_LINKS, _GET_ADDRESSES, _GET_NAMESPACE_NUMBER = 18, 22, 90  # RTM_GETLINK, …ADDR, …NSID
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_UP, _LOOPBACK = 1, 8  # IFF_*
_IFLA_LINK, _IFLA_INFORMATION, _IFLA_NAMESPACE, _IFLA_MASK = 5, 18, 37, 29
_INFORMATION_KIND = 1  # IFLA_INFO_KIND
_SKIP_STATISTICS = struct.pack("=I", 1 << 3)  # RTEXT_FILTER_SKIP_STATS
_NAMESPACE = struct.Struct("=B3x")  # struct rtgenmsg, padded
_NUMBER_HERE, _BY_DESCRIPTOR = 1, 3  # NETNSA_NSID, NETNSA_FD
_SIGNED = struct.Struct("=i")
_PAIRED = {"veth", "netkit"}
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_SCOPE_LINK, _SCOPE_HOST = 253, 254  # RT_SCOPE_*
_FARTHEST = {Family.IPV4: _SCOPE_HOST, Family.IPV6: _SCOPE_LINK}
_TRIES = 5  # of a listing that changes disturb

_LINKS = NetlinkProtocol(socket.NETLINK_ROUTE, _LINK.size)
_ADDRESSES = NetlinkProtocol(socket.NETLINK_ROUTE, _ADDRESS.size)
_NAMESPACES = NetlinkProtocol(socket.NETLINK_ROUTE, _NAMESPACE.size)


class _Device(NamedTuple):
    flags: int
    about: Attributes


def only_peer(of: int) -> int | None:
    """Return the number of the device, in the namespace of a descriptor, that all leads to.

    That is the other end of the only device of this namespace that is up, loopback apart; None
    where it has none, several, or one that is joined otherwise. Raises BackendError.
    """
    devices = [each for each in _devices() if each.flags & _UP and not each.flags & _LOOPBACK]
    if len(devices) != 1:
        return None
    (device,) = devices
    kind = attributes(device.about.get(_IFLA_INFORMATION, b"")).get(_INFORMATION_KIND, b"")
    joined_to = device.about.get(_IFLA_NAMESPACE)
    if text(kind) not in _PAIRED or joined_to is None or joined_to != _number_of(of):
        return None
    return int(_SIGNED.unpack(device.about[_IFLA_LINK])[0])


def usable_addresses(family: Family) -> frozenset[bytes]:
    """Return from which addresses of this namespace packets may be sent to others.

    Raises BackendError.
    """
    request = _ADDRESS.pack(AF[family], 0, 0, 0, 0)
    found = set()
    for body in _listed("listing a namespace's addresses", _ADDRESSES, _GET_ADDRESSES, request):
        _, _, short_flags, scope, _ = _ADDRESS.unpack_from(body)
        about = attributes(body[_ADDRESS.size :])
        flags = int.from_bytes(about.get(_IFA_FLAGS, bytes([short_flags])), sys.byteorder)
        if scope < _FARTHEST[family] and not flags & _UNUSABLE:
            found.add(about.get(_IFA_LOCAL) or about[_IFA_ADDRESS])
    return frozenset(found)


def _devices() -> list[_Device]:
    request = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_MASK, _SKIP_STATISTICS)
    found = _listed("listing a namespace's devices", _LINKS, _GET_LINKS, request)
    return [_Device(_LINK.unpack_from(body)[3], attributes(body[_LINK.size :])) for body in found]


def _listed(doing: str, protocol: NetlinkProtocol, kind: int, request: bytes) -> list[bytes]:
    """Return the answers to a request, each with what stands before its attributes."""
    with Netlink(doing, protocol) as netlink:
        for _ in range(_TRIES):
            netlink.send(message(kind, REQUEST | DUMP, request))
            found = [
                data[start - protocol.header_bytes : end] for data, start, end in netlink.parts()
            ]
            if not netlink.interrupted:
                return found
    raise BackendError(doing, "they changed while they were listed", transient=True)


def _number_of(namespace: int) -> bytes:
    """Return by which number this namespace knows another one; -1 where it has none for it."""
    request = _NAMESPACE.pack(0) + attribute(_BY_DESCRIPTOR, struct.pack("=I", namespace))
    with Netlink("asking for the number of a namespace", _NAMESPACES) as netlink:
        netlink.send(message(_GET_NAMESPACE_NUMBER, REQUEST, request))
        return attributes(next(netlink.answers()))[_NUMBER_HERE]
