"""How a network namespace is joined to another one, and from where it may be spoken to.

Layouts: linux/rtnetlink.h, linux/net_namespace.h.
"""

from __future__ import annotations

import socket
import struct

from backends.kernel.addresses import AddressFlag, interface_addresses
from backends.kernel.links import LinkFlag, links
from backends.kernel.netlink import (
    REQUEST,
    Netlink,
    NetlinkProtocol,
    attribute,
    attributes,
    message,
)
from kproxy.core.addresses import Family

_GET_NAMESPACE_NUMBER = 90  # RTM_GETNSID
_NAMESPACE = struct.Struct("=B3x")  # struct rtgenmsg, padded
_NUMBER_HERE, _BY_DESCRIPTOR = 1, 3  # NETNSA_NSID, NETNSA_FD
_PAIRED = {"veth", "netkit"}
_UNUSABLE = AddressFlag.TENTATIVE | AddressFlag.DUPLICATE
_SCOPE_LINK, _SCOPE_HOST = 253, 254  # RT_SCOPE_*
_FARTHEST = {Family.IPV4: _SCOPE_HOST, Family.IPV6: _SCOPE_LINK}

_NAMESPACES = NetlinkProtocol(socket.NETLINK_ROUTE, _NAMESPACE.size)


def only_peer(of: int) -> int | None:
    """Return the number of the device, in the namespace of a descriptor, that all leads to.

    That is the other end of the only device of this namespace that is up, loopback apart; None
    where it has none, several, or one that is joined otherwise. Raises BackendError.
    """
    up = [each for each in links() if each.flags & LinkFlag.UP]
    devices = [each for each in up if not each.flags & LinkFlag.LOOPBACK]
    if len(devices) != 1:
        return None
    (device,) = devices
    if device.kind not in _PAIRED or device.namespace is None:
        return None
    return device.linked if device.namespace == _number_of(of) else None


def usable_addresses(family: Family) -> frozenset[bytes]:
    """Return from which addresses of this namespace packets may be sent to others.

    Raises BackendError.
    """
    return frozenset(
        each.address
        for each in interface_addresses(family)
        if each.scope < _FARTHEST[family] and not each.flags & _UNUSABLE
    )


def _number_of(namespace: int) -> int:
    """Return by which number this namespace knows another one; -1 where it has none for it."""
    request = _NAMESPACE.pack(0) + attribute(_BY_DESCRIPTOR, struct.pack("=I", namespace))
    with Netlink("asking for the number of a namespace", _NAMESPACES) as netlink:
        netlink.send(message(_GET_NAMESPACE_NUMBER, REQUEST, request))
        (number,) = struct.unpack("=i", attributes(next(netlink.answers()))[_NUMBER_HERE])
    return int(number)
