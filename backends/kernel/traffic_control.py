"""clsact and its BPF filters, by netlink. Layouts: linux/rtnetlink.h, linux/pkt_cls.h."""

from __future__ import annotations

import errno
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from backends.kernel.bpf.syscall import Descriptor
from backends.kernel.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    REQUEST,
    Netlink,
    NetlinkProtocol,
    attribute,
    attributes,
    message,
    refusal,
    text,
    text_attribute,
)
from backends.kernel.route_netlink import Event, Kind, listed

_GET_QDISCS, _GET_FILTERS = 38, 46  # RTM_GETQDISC, RTM_GETTFILTER
_HEADER = struct.Struct("=BxxxiIII")  # struct tcmsg: family, device, handle, parent, info
_KIND, _OPTIONS = 1, 2  # TCA_*
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11  # TCA_BPF_*
_DIRECT_ACTION = struct.pack("=I", 1)  # TCA_BPF_FLAG_ACT_DIRECT
_NUMBER = struct.Struct("=I")
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_CLSACT_KINDS = ("clsact", "ingress")
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_ROUTE = NetlinkProtocol(socket.NETLINK_ROUTE, 0)
_TRAFFIC_KINDS = frozenset(
    {Kind.NEW_QDISC, Kind.DELETED_QDISC, Kind.NEW_FILTER, Kind.DELETED_FILTER}
)

LAST_PRIORITY = 0xFFFF
"""Filters run by ascending priority, from 1 on."""


class Parent(IntEnum):
    """Where filters of clsact are: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_*)."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


class Filter(NamedTuple):
    """A filter, as it runs among others; `name` and `program` of BPF ones alone, else "" and 0."""

    priority: int
    handle: int
    kind: str
    name: str
    program: int


def devices_with_clsact() -> set[int]:
    """Return the devices that have a qdisc for such filters. Raises BackendError."""
    request = _HEADER.pack(0, 0, 0, 0, 0)
    found = listed("list the queueing disciplines", _GET_QDISCS, request, strict=False)
    return {
        _HEADER.unpack_from(body)[1]
        for body in found
        if text(attributes(body[_HEADER.size :]).get(_KIND, b"")) in _CLSACT_KINDS
    }


def filters(device: int, parent: Parent) -> list[Filter]:
    """Return the filters of a device in the order in which they run. Raises BackendError.

    There are none where the device, or its qdisc, is gone.
    """
    request = _HEADER.pack(0, device, 0, parent, 0)
    doing = f"list the filters of the device number {device}"
    found = [_filter(body) for body in listed(doing, _GET_FILTERS, request, strict=False)]
    return [each for each in found if each.handle]  # without it: the head of a chain


def changed_traffic(event: Event) -> int | None:
    """Return the device whose qdiscs or filters a message tells of; None for other messages."""
    if event.kind not in _TRAFFIC_KINDS:
        return None
    return int(_HEADER.unpack_from(event.body)[1])


def add_clsact(device: int) -> bool:
    """Make the qdisc; return whether it was not there. Raises BackendError."""
    header = _HEADER.pack(0, device, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
    body = header + text_attribute(_KIND, "clsact")
    doing = f"adding clsact to the device number {device}"
    return _ask(doing, Kind.NEW_QDISC, CREATE | EXCLUSIVE, body, passed=(errno.EEXIST,))


def remove_clsact(device: int) -> bool:
    """Remove the qdisc; return whether it was there. Raises BackendError."""
    body = _HEADER.pack(0, device, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
    doing = f"removing clsact from the device number {device}"
    return _ask(doing, Kind.DELETED_QDISC, 0, body, passed=_GONE)


def put_filter(
    device: int, parent: Parent, wanted: Filter, program: Descriptor, *, replace: bool
) -> bool:
    """Make a filter or, in one step, put another program into it; `wanted.program` says nothing.

    Returns whether it was done: without `replace`, not where there is one of this handle; and not
    where others have the priority for filters of another kind. Raises BackendError.
    """
    header = _HEADER.pack(0, device, wanted.handle, parent, wanted.priority << 16 | _ALL_PROTOCOLS)
    options = (
        attribute(_BPF_FD, _NUMBER.pack(program.fileno()))
        + text_attribute(_BPF_NAME, wanted.name)
        + attribute(_BPF_FLAGS, _DIRECT_ACTION)
    )
    body = header + text_attribute(_KIND, "bpf") + attribute(_OPTIONS, options)
    flags = CREATE if replace else CREATE | EXCLUSIVE
    doing = f"adding a filter to the device number {device}"
    return _ask(doing, Kind.NEW_FILTER, flags, body, passed=(errno.EEXIST, errno.EINVAL))


def remove_filter(device: int, parent: Parent, found: Filter) -> bool:
    """Remove a filter; return whether it was there. Raises BackendError."""
    header = _HEADER.pack(0, device, found.handle, parent, found.priority << 16 | _ALL_PROTOCOLS)
    body = header + text_attribute(_KIND, found.kind)
    doing = f"removing a filter from the device number {device}"
    return _ask(doing, Kind.DELETED_FILTER, 0, body, passed=_GONE)


_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)  # the filter, the device, the qdisc


def _ask(doing: str, kind: Kind, flags: int, body: bytes, *, passed: tuple[int, ...]) -> bool:
    with Netlink(doing, _ROUTE) as netlink:
        netlink.send(message(kind, REQUEST | ACK | flags, body))
        code = netlink.status()
    if code and code not in passed:
        raise refusal(doing, code)
    return not code


def _filter(body: bytes) -> Filter:
    _, _, handle, _, info = _HEADER.unpack_from(body)
    found = attributes(body[_HEADER.size :])
    kind = text(found.get(_KIND, b""))
    about = attributes(found.get(_OPTIONS, b"")) if kind == "bpf" else {}
    return Filter(
        priority=info >> 16,
        handle=handle,
        kind=kind,
        name=text(about.get(_BPF_NAME, b"")),
        program=_NUMBER.unpack(about[_BPF_ID])[0] if _BPF_ID in about else 0,
    )
