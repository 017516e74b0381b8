"""Listing and following what rtnetlink knows. Layouts: linux/rtnetlink.h."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

from backends.kernel.netlink import (
    AF,
    DUMP,
    REQUEST,
    Netlink,
    NetlinkProtocol,
    NetlinkRefusal,
    message,
    refusal,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
ROUTE_HEADER = struct.Struct("=8BI")  # struct rtmsg
GET_ROUTES = 26  # RTM_GETROUTE
LOCAL_TABLE, LOCAL_TYPE = 255, 2  # RT_TABLE_LOCAL, RTN_LOCAL

ROUTE = NetlinkProtocol(socket.NETLINK_ROUTE, 0)

_CLONED = 0x200  # RTM_F_CLONED
_TRIES = 5  # of a listing that changes disturb
_RECEIVE_BUFFER_FORCE, _ATTACH_FILTER = 33, 26  # SO_RCVBUFFORCE, SO_ATTACH_FILTER
_RECEIVE_BYTES = 1 << 16
_ROOM_BYTES = 4 << 20  # of messages that wait: some 2,000 links
_LISTENING = "listening for changes of devices, addresses and routes"


class Kind(IntEnum):
    """What a message is about: RTM_*."""

    NEW_LINK = 16
    DELETED_LINK = 17
    NEW_ADDRESS = 20
    DELETED_ADDRESS = 21
    NEW_ROUTE = 24
    DELETED_ROUTE = 25
    NEW_RULE = 32
    DELETED_RULE = 33
    NEW_QDISC = 36
    DELETED_QDISC = 37
    NEW_FILTER = 44
    DELETED_FILTER = 45


class Group(IntFlag):
    """What can be followed: RTMGRP_*."""

    LINKS = 1 << 0
    TRAFFIC_CONTROL = 1 << 3
    IPV4_ADDRESSES = 1 << 4
    IPV4_ROUTES = 1 << 6
    IPV4_RULES = 1 << 7
    IPV6_ADDRESSES = 1 << 8
    IPV6_ROUTES = 1 << 10
    IPV6_RULES = 1 << 18


class Event(NamedTuple):
    """A message; `body` begins with the header of its kind."""

    kind: int
    body: bytes


class Overrun(Exception):
    """Messages were lost for want of room: only a full listing tells what is true now."""


def listed(doing: str, kind: int, request: bytes, *, strict: bool) -> Iterator[bytes]:
    """Return the bodies of the answers to a listing.

    `strict`: what the request says is a filter (Linux 4.20). Raises BackendError.
    """
    with Netlink(doing, ROUTE._replace(strict=strict)) as netlink:
        for _ in range(_TRIES):
            netlink.send(message(kind, REQUEST | DUMP, request))
            found = list(netlink.answers())
            if not netlink.interrupted:
                return iter(found)
    raise BackendError(doing, "they changed while they were listed", transient=True)


def routes_in(family: Family, table: int, kind: int, *, doing: str) -> list[bytes]:
    """Return the bodies of a table's routes of a kind (RTN_*); none if there is no such table yet.

    Raises BackendError.
    """
    request = ROUTE_HEADER.pack(AF[family], 0, 0, 0, table, 0, 0, kind, 0)
    try:
        return list(listed(doing, GET_ROUTES, request, strict=True))
    except NetlinkRefusal as refused:
        if refused.number != errno.ENOENT:  # a table is made with its first route
            raise
        return []


def is_cached(body: bytes) -> bool:
    """Say whether what looks like a route is an entry of a cache."""
    *_, flags = ROUTE_HEADER.unpack_from(body)
    return bool(flags & _CLONED)


class RouteWriter:
    """A socket that stays open, so that what it asks for can be told from others' doings.

    `port`: the number that the kernel's messages about that have. For one thread. Any call but
    `close` and `refusal` may raise BackendError.
    """

    def __init__(self, doing: str) -> None:
        self._netlink = Netlink(doing, ROUTE)
        self.port = self._netlink.port()

    def ask(self, kind: int, flags: int, bodies: Iterable[bytes]) -> list[int]:
        """Send requests, and return the error numbers of those that are refused."""
        return [code for _, code in self._netlink.failures(kind, flags, bodies)]

    def refusal(self, code: int) -> NetlinkRefusal:
        """Return the error for an error number."""
        return self._netlink.refusal(code)

    def close(self) -> None:
        """Let go of the socket."""
        self._netlink.close()


class RouteEvents:
    """Follows groups of rtnetlink: `fileno` is readable when something changed. For one thread.

    Of routes only the host's own are told, as a node may learn thousands of others a second; with
    `any_table` also those that rules of policy routing make its own.
    `but_of`: nothing is told that was asked for by the socket of this port.
    """

    def __init__(self, groups: Group, *, but_of: int = 0, any_table: bool = False) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _ROOM_BYTES)
            others_only = _others_only(but_of) if but_of else ()
            of_table = () if any_table else _OF_THE_LOCAL_TABLE
            _attach(self._socket, (*others_only, *of_table, *_OWN_ROUTES_ONLY))
            self._socket.bind((0, groups))
        except OSError as error:
            raise refusal(_LISTENING, error.errno or 0) from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def read(self, most: int) -> list[Event]:
        """Return what has been told, up to about so many messages. Raises Overrun, BackendError."""
        events: list[Event] = []
        while len(events) < most:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun from error
                raise refusal(_LISTENING, error.errno or 0) from error
            events += _split(data)
        return events

    def drain(self) -> None:
        """Forget what has been told so far. Raises BackendError."""
        while True:
            try:
                if not self.read(1):
                    return
            except Overrun:
                continue  # which is told once

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _split(data: bytes) -> Iterator[Event]:
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield Event(kind, data[at + HEADER.size : at + length])
        at += length + 3 & ~3


# Classic BPF (linux/filter.h): load a part, jump if it equals, return how much to keep.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_KIND_AT, _PORT_AT, _TABLE_AT, _TYPE_AT = 4, 12, 20, 23  # nlmsg_type, nlmsg_pid, rtm_table, …
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")
_OF_THE_LOCAL_TABLE = (
    (_LOAD_HALF, 0, 0, _KIND_AT),
    (_EQUAL, 1, 0, socket.htons(Kind.NEW_ROUTE)),  # loads are in network order
    (_EQUAL, 0, 3, socket.htons(Kind.DELETED_ROUTE)),
    (_LOAD_BYTE, 0, 0, _TABLE_AT),
    (_EQUAL, 1, 0, LOCAL_TABLE),
    (_RETURN, 0, 0, 0),
)
_OWN_ROUTES_ONLY = (
    (_LOAD_HALF, 0, 0, _KIND_AT),
    (_EQUAL, 1, 0, socket.htons(Kind.NEW_ROUTE)),
    (_EQUAL, 0, 2, socket.htons(Kind.DELETED_ROUTE)),
    (_LOAD_BYTE, 0, 0, _TYPE_AT),
    (_EQUAL, 0, 1, LOCAL_TYPE),
    (_RETURN, 0, 0, 0xFFFFFFFF),
    (_RETURN, 0, 0, 0),
)


def _others_only(port: int) -> Sequence[tuple[int, int, int, int]]:
    return (
        (_LOAD_WORD, 0, 0, _PORT_AT),
        (_EQUAL, 0, 1, socket.htonl(port)),
        (_RETURN, 0, 0, 0),
    )


def _attach(sock: socket.socket, instructions: Sequence[tuple[int, int, int, int]]) -> None:
    """Let a socket get only what the instructions keep."""
    code = b"".join(_INSTRUCTION.pack(*each) for each in instructions)
    held = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(instructions), ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
