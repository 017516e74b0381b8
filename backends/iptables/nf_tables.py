"""The little that is asked of nf_tables directly, over netlink.

Layouts: linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import struct
from collections.abc import Iterator

from backends.iptables.rules import CHAIN_PREFIX
from kproxy.backend import BackendError
from kproxy.core.addresses import Family

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE, _DELETE_TABLE, _GET_CHAIN, _GET_GENERATION = (_SUBSYSTEM | n for n in (1, 2, 4, 16))
_BATCH_BEGIN, _BATCH_END = 16, 17
_REQUEST, _ACK, _DUMP, _DUMP_INTERRUPTED = 1, 4, 0x300, 0x10
_ERROR, _DONE = 2, 3
_GENERATION_ID = 1  # NFTA_GEN_ID
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_CHAIN_TABLE, _CHAIN_HANDLE, _CHAIN_NAME, _CHAIN_USE = 1, 2, 3, 6  # NFTA_CHAIN_*
FAMILY_NAME = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_PROTOCOL = {Family.IPV4: 2, Family.IPV6: 10}  # NFPROTO_*

_HEADER = struct.Struct("=IHHII")
_FAMILY_HEADER = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_STATUS = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM}
_BUFFER_BYTES = 1 << 18
_TIMEOUT_S = 10.0

Attributes = dict[int, bytes]


def generation() -> int:
    """Return how many transactions this network namespace's ruleset has seen, modulo 2**32."""
    with _Netlink("asking nf_tables for its generation") as netlink:
        netlink.send(_message(_GET_GENERATION, _REQUEST, 0))
        return int.from_bytes(next(netlink.answers())[_GENERATION_ID], "big")


def chains_digest(family: Family) -> bytes | None:
    """Return a digest of our chains' handles and use counts; None if they moved while read.

    A chain's use counts its rules and the jumps to it, so one rule more or less shows in it, and
    a chain that was deleted and made again has another handle.
    """
    prefix = CHAIN_PREFIX.encode()
    digest = hashlib.blake2b(digest_size=8)
    with _Netlink("listing nf_tables chains") as netlink:
        netlink.send(_message(_GET_CHAIN, _REQUEST | _DUMP, _PROTOCOL[family]))
        for chain in netlink.answers():
            if chain[_CHAIN_NAME].startswith(prefix):
                for part in (_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HANDLE, _CHAIN_USE):
                    digest.update(chain[part])
        return None if netlink.interrupted else digest.digest()


def has_table(family: Family, name: str) -> bool:
    """Say whether a table exists."""
    wanted = name.encode() + b"\0"
    with _Netlink("listing nf_tables tables") as netlink:
        netlink.send(_message(_GET_TABLE, _REQUEST | _DUMP, _PROTOCOL[family]))
        return any([table[_TABLE_NAME] == wanted for table in netlink.answers()])


def tables_with_chains(family: Family, prefix: str) -> set[str]:
    """Return the tables that hold a chain whose name begins with a prefix."""
    wanted = prefix.encode()
    with _Netlink("listing nf_tables chains") as netlink:
        netlink.send(_message(_GET_CHAIN, _REQUEST | _DUMP, _PROTOCOL[family]))
        return {
            chain[_CHAIN_TABLE].rstrip(b"\0").decode()
            for chain in netlink.answers()
            if chain[_CHAIN_NAME].startswith(wanted)
        }


def delete_table(family: Family, name: str) -> None:
    """Delete a table with all it holds. Raises BackendError, also if there is none."""
    attribute = _attribute(_TABLE_NAME, name.encode() + b"\0")
    batch = (
        _message(_BATCH_BEGIN, _REQUEST, 0, resource=_SUBSYSTEM >> 8)
        + _message(_DELETE_TABLE, _REQUEST | _ACK, _PROTOCOL[family], attribute)
        + _message(_BATCH_END, _REQUEST, 0, resource=_SUBSYSTEM >> 8)
    )
    with _Netlink(f"deleting the nf_tables table {name}") as netlink:
        netlink.send(batch)
        list(netlink.answers())


class _Netlink:
    """A netlink socket for one request; `interrupted` is valid after its answers were read."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.interrupted = False
        with self._refusals():
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
            )
            self._socket.settimeout(_TIMEOUT_S)

    def __enter__(self) -> _Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        with self._refusals():
            self._socket.send(message)

    def answers(self) -> Iterator[Attributes]:
        """Yield each answer's attributes, until the kernel says that it is done."""
        while True:
            with self._refusals():
                data = self._socket.recv(_BUFFER_BYTES)
            at = 0
            while at < len(data):
                length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
                self.interrupted |= bool(flags & _DUMP_INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    self._check_status(data, at + _HEADER.size)
                    return
                yield dict(_attributes(data, at + _HEADER.size + _FAMILY_HEADER.size, at + length))
                at += length + 3 & ~3

    def _check_status(self, data: bytes, at: int) -> None:
        (status,) = _STATUS.unpack_from(data, at)
        if status:
            raise BackendError(self._doing, os.strerror(-status), transient=-status in _PASSING)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            passing = isinstance(error, TimeoutError) or error.errno in _PASSING
            raise BackendError(self._doing, str(error), transient=passing) from error


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at < end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def _attribute(kind: int, content: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(content)
    return _ATTRIBUTE.pack(length, kind) + content + bytes(-length % 4)


def _message(
    kind: int, flags: int, protocol: int, attributes: bytes = b"", *, resource: int = 0
) -> bytes:
    body = _FAMILY_HEADER.pack(protocol, 0, socket.htons(resource)) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body
