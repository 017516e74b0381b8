"""The network devices of this host, by netlink. Layouts: linux/if_link.h, linux/if_arp.h."""

from __future__ import annotations

import errno
import socket
import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from backends.kernel.netlink import (
    ACK,
    REQUEST,
    Netlink,
    NetlinkRefusal,
    attribute,
    attributes,
    message,
    spans,
    text,
    text_attribute,
)
from backends.kernel.route_netlink import ROUTE, Event, Kind, listed

_GET_LINKS = 18  # RTM_GETLINK
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, changed flags
_AF_BRIDGE = 7
_ADDRESS, _NAME, _LINK, _MASTER, _INFORMATION, _MASK, _NAMESPACE = 1, 3, 5, 10, 18, 29, 37  # IFLA_*
_INFO_KIND, _INFO_DATA, _INFO_PORT_KIND = 1, 2, 4  # IFLA_INFO_*
_WITHOUT_STATISTICS = attribute(_MASK, struct.pack("=I", 1 << 3))  # RTEXT_FILTER_SKIP_STATS
_NUMBER = struct.Struct("=I")
_SIGNED = struct.Struct("=i")

# Where the data of a tunnel's kind has its other end: IFLA_GRE_REMOTE.
_REMOTE_OF_GRE = 7


class Hardware(IntEnum):
    """ARPHRD_*: what packets begin with."""

    ETHERNET = 1
    PPP = 512
    RAW_IP = 519
    TUNNEL = 768
    TUNNEL6 = 769
    LOOPBACK = 772
    SIT = 776
    GRE = 778
    GRE6 = 823
    NONE = 0xFFFE


class LinkFlag(IntFlag):
    """IFF_*: those that matter here."""

    UP = 1 << 0
    LOOPBACK = 1 << 3
    MEMBER = 1 << 11  # IFF_SLAVE: of a bond, or below a virtual function's master


class Link(NamedTuple):
    """A network device by its number; `hardware` is one of ARPHRD_*.

    - `master`: the number of the device that this is a port or member of, else 0.
    - `kind`, `port_kind`: its kind and its master's, "" for hardware and where there is none.
    - `remote`: the other end of a GRE tunnel, empty where it has none or is no such tunnel.
    - `linked`: the number of the device that it stands on or is paired with, else 0; `namespace`:
      by which number its own namespace knows that one's, None where that is the same.
    """

    device: int
    name: str
    hardware: int
    flags: int
    mac: bytes
    master: int
    kind: str
    port_kind: str
    remote: bytes
    linked: int = 0
    namespace: int | None = None


def links() -> list[Link]:
    """Return the devices of this network namespace by ascending number. Raises BackendError."""
    request = _HEADER.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS
    found = listed("list the network devices", _GET_LINKS, request, strict=True)
    return sorted(map(_parsed, found))


def link_named(name: str) -> Link | None:
    """Return the device that has a name, None if there is none. Raises BackendError."""
    request = _HEADER.pack(0, 0, 0, 0, 0) + text_attribute(_NAME, name)
    with Netlink(f"looking for the network device {name}", ROUTE) as netlink:
        netlink.send(message(_GET_LINKS, REQUEST | ACK, request + _WITHOUT_STATISTICS))
        try:
            (found,) = map(_parsed, netlink.answers())
        except NetlinkRefusal as refused:
            if refused.number == errno.ENODEV:
                return None
            raise
    return found


def exists(device: int) -> bool:
    """Say whether a device of this network namespace has a number."""
    try:
        socket.if_indextoname(device)
    except OSError:
        return False
    return True


def changed_link(event: Event) -> Link | None:
    """Return the device that a message about links tells of; None: it tells of a port alone.

    Bridges tell of their ports in messages of the same kinds, and say "deleted" of a device that
    only left the bridge.
    """
    if event.kind not in (Kind.NEW_LINK, Kind.DELETED_LINK) or event.body[0] == _AF_BRIDGE:
        return None
    return link if (link := _parsed(event.body)).name else None  # wireless ones tell less


def _parsed(body: bytes) -> Link:
    _, hardware, index, flags, _ = _HEADER.unpack_from(body)
    found = attributes(body[_HEADER.size :])
    about = attributes(found.get(_INFORMATION, b""))
    kind = text(about.get(_INFO_KIND, b""))
    return Link(
        device=index,
        name=text(found.get(_NAME, b"")),
        hardware=hardware,
        flags=flags,
        mac=found.get(_ADDRESS, b""),
        master=_NUMBER.unpack(found[_MASTER])[0] if _MASTER in found else 0,
        kind=kind,
        port_kind=text(about.get(_INFO_PORT_KIND, b"")),
        remote=_remote(kind, about.get(_INFO_DATA, b"")),
        linked=_SIGNED.unpack(found[_LINK])[0] if _LINK in found else 0,
        namespace=_SIGNED.unpack(found[_NAMESPACE])[0] if _NAMESPACE in found else None,
    )


def _remote(kind: str, data: bytes) -> bytes:
    if kind not in ("gre", "ip6gre"):
        return b""
    return next(
        (data[at:end] for number, at, end in spans(data, 0, len(data)) if number == _REMOTE_OF_GRE),
        b"",
    )
