"""A bare socket to the kernel's netfilter subsystems, and the layout of their messages.

pyroute2 0.9 takes 0.4 ms to build a request and 50 µs to take an answer apart; here are up to
20,000 of them at once. Layouts: linux/netlink.h and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from kproxy.backend import BackendError

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
EXCLUSIVE, CREATE = 0x200, 0x400
ATTRIBUTE = struct.Struct("=HH")  # length with this header, type
NESTED, TYPE_MASK = 0x8000, 0x3FFF

_NETLINK_NETFILTER = 12
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_FAMILY_HEADER = struct.Struct("=BBH")  # family, version, resource
_STATUS = struct.Struct("=i")
_BODY = _HEADER.size + _FAMILY_HEADER.size
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM}
_BUFFER_BYTES = 1 << 16  # the kernel fills at most half of it
_TIMEOUT_S = 10.0

Attributes = dict[int, bytes]


class Netlink:
    """A socket for one kind of request; every failure on it is a BackendError.

    `interrupted` is valid after a dump was read to its end: the kernel's objects changed
    meanwhile, so that some may be missing from it or in it twice.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.interrupted = False
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as error:
            raise self._failed(error) from error
        self._socket.settimeout(_TIMEOUT_S)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, messages: bytes) -> None:
        """Send one or several messages."""
        try:
            self._socket.send(messages)
        except OSError as error:
            raise self._failed(error) from error

    def answers(self) -> Iterator[bytes]:
        """Yield each answer's attributes, until the kernel says that it is done or refuses."""
        self.interrupted = False
        while True:
            data = self._receive()
            at = 0
            while at < len(data):
                length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
                if flags & _DUMP_INTERRUPTED:
                    self.interrupted = True
                if kind in (_ERROR, _DONE):
                    (status,) = _STATUS.unpack_from(data, at + _HEADER.size)
                    if status:
                        raise self.refusal(-status)
                    return
                yield data[at + _BODY : at + length]
                at += length + 3 & ~3

    def statuses(self, count: int) -> list[int]:
        """Return the error numbers, 0 for success, that answer so many messages with ACK."""
        found: list[int] = []
        while len(found) < count:
            data = self._receive()
            at = 0
            while at < len(data):
                (length, *_) = _HEADER.unpack_from(data, at)
                found.append(-_STATUS.unpack_from(data, at + _HEADER.size)[0])
                at += length + 3 & ~3
        return found

    def refusal(self, code: int) -> BackendError:
        """Return the error for an error number of the kernel."""
        return BackendError(self._doing, os.strerror(code), transient=code in _PASSING)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_BUFFER_BYTES)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> BackendError:
        return self.refusal(error.errno or errno.EAGAIN)  # a time-out has no errno


def message(
    kind: int, flags: int, protocol: int, attributes: bytes = b"", *, resource: int = 0
) -> bytes:
    """Return a message; `protocol` is an NFPROTO_* or AF_* number."""
    body = _FAMILY_HEADER.pack(protocol, 0, socket.htons(resource)) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    """Return an attribute."""
    length = ATTRIBUTE.size + len(content)
    return ATTRIBUTE.pack(length, kind) + content + bytes(-length % 4)


def text_attribute(kind: int, content: str) -> bytes:
    """Return an attribute that holds a string."""
    return attribute(kind, content.encode() + b"\0")


def attributes(data: bytes) -> Attributes:
    """Return the attributes by their types, the last one of each type."""
    return {kind: data[start:end] for kind, start, end in spans(data)}


def spans(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each attribute's type and where its content begins and ends."""
    at = 0
    while at < len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        yield kind & TYPE_MASK, at + ATTRIBUTE.size, at + length
        at += length + 3 & ~3


def nested(data: bytes) -> Iterator[Attributes]:
    """Yield the attributes of each member of a list."""
    for _, start, end in spans(data):
        yield attributes(data[start:end])


def text(content: bytes) -> str:
    """Return the string that an attribute holds."""
    return content.rstrip(b"\0").decode(errors="replace")
