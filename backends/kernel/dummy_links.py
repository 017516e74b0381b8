"""Dummy links: devices that carry nothing, for addresses. Layout: linux/if_link.h."""

from __future__ import annotations

import errno
import socket
import struct

from backends.kernel.links import Link, LinkFlag, link_named
from backends.kernel.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    NESTED,
    REQUEST,
    Netlink,
    attribute,
    message,
    text_attribute,
)
from backends.kernel.route_netlink import ROUTE
from kproxy.ports.data_path import BackendError

KIND = "dummy"
REMEDY = "load the kernel module: modprobe dummy"

_NEW, _DELETE, _SET = 16, 17, 19  # RTM_*LINK
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, changed flags
_ADDRESS, _NAME, _INFORMATION, _BY_FAMILY = 1, 3, 18, 26  # IFLA_*
_INFO_KIND = 1
_IMPOSSIBLE = bytes(6)
_ADDRESSES_OF_ITS_OWN, _NONE = 8, b"\1"  # IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE


def are_possible() -> bool:
    """Say whether there can be dummy links; the kernel loads their module for it.

    None is made: one with an address of zeros is refused, but not before its kind was found
    (dummy_validate). Raises BackendError.
    """
    with Netlink("asking for dummy links", ROUTE) as netlink:
        code = _make(netlink, attribute(_ADDRESS, _IMPOSSIBLE))
        if code not in (errno.EADDRNOTAVAIL, errno.EOPNOTSUPP):
            raise netlink.refusal(code)
    return code == errno.EADDRNOTAVAIL


def raised(name: str) -> Link:
    """Return the dummy link of a name, up; made if there is none.

    Raises BackendError, also where a link of another kind has the name.
    """
    doing = f"making the link {name}"
    with Netlink(doing, ROUTE) as netlink:
        code = _make(netlink, text_attribute(_NAME, name))
        if code == errno.EOPNOTSUPP:
            detail = f"the kernel has no dummy links; {REMEDY}"
            raise BackendError(doing, detail, transient=False)
        if code not in (0, errno.EEXIST):
            raise netlink.refusal(code)
        link = _found(doing, name)
        if not link.flags & LinkFlag.UP:
            _set_up(netlink, link.device)
            link = _found(doing, name)
    return link


def remove(link: Link) -> bool:
    """Remove a link; say whether it was there. Raises BackendError."""
    with Netlink(f"removing the link {link.name}", ROUTE) as netlink:
        code = _asked(netlink, _DELETE, 0, _HEADER.pack(0, 0, link.device, 0, 0))
        if code not in (0, errno.ENODEV):
            raise netlink.refusal(code)
    return not code


def _make(netlink: Netlink, content: bytes) -> int:
    kind = attribute(_INFORMATION | NESTED, text_attribute(_INFO_KIND, KIND))
    body = _HEADER.pack(0, 0, 0, 0, 0) + content + kind
    return _asked(netlink, _NEW, CREATE | EXCLUSIVE, body)


def _set_up(netlink: Netlink, device: int) -> None:
    """Set a link up, without the address that IPv6 gives to a link by itself, if there is IPv6."""
    none = attribute(_ADDRESSES_OF_ITS_OWN, _NONE)
    by_family = attribute(_BY_FAMILY | NESTED, attribute(socket.AF_INET6 | NESTED, none))
    code = _asked(netlink, _SET, 0, _HEADER.pack(0, 0, device, 0, 0) + by_family)
    if code not in (0, errno.EAFNOSUPPORT):
        raise netlink.refusal(code)
    code = _asked(netlink, _SET, 0, _HEADER.pack(0, 0, device, LinkFlag.UP, LinkFlag.UP))
    if code:
        raise netlink.refusal(code)


def _found(doing: str, name: str) -> Link:
    link = link_named(name)
    if link is None:
        raise BackendError(doing, "somebody else removed it at once", transient=True)
    if link.kind != KIND:
        kind = link.kind or "hardware"
        detail = f"a link of the kind {kind}, not {KIND}, has this name"
        raise BackendError(doing, detail, transient=False)
    return link


def _asked(netlink: Netlink, kind: int, flags: int, body: bytes) -> int:
    netlink.send(message(kind, REQUEST | ACK | flags, body))
    return netlink.status()
