"""What the kernel tells at once of the legacy variant's tables: which exist, and how big they are.

Structures: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import NamedTuple

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_NAMES = {Family.IPV4: "ip_tables_names", Family.IPV6: "ip6_tables_names"}
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_LEVEL = {Family.IPV4: socket.IPPROTO_IP, Family.IPV6: socket.IPPROTO_IPV6}
_GET_INFO = 64  # IPT_SO_GET_INFO and IP6T_SO_GET_INFO
_GET_MATCH_REVISION = {Family.IPV4: 66, Family.IPV6: 68}  # IP(6)T_SO_GET_REVISION_MATCH
_REVISION_SIZE = 30  # struct xt_get_revision: 29 characters and a number
_GETINFO = struct.Struct("=32sI5I5III")  # struct ipt_getinfo, struct ip6t_getinfo


class Info(NamedTuple):
    """How big a table is; each user chain counts two entries besides its rules."""

    entries: int
    size_bytes: int


def tables(family: Family) -> frozenset[str]:
    """Return the names of the tables that exist. Asking for any other one would create it."""
    path = f"/proc/thread-self/net/{_NAMES[family]}"
    try:
        with open(path) as names:
            return frozenset(names.read().split())
    except FileNotFoundError:
        return frozenset()  # a kernel without the legacy variant
    except OSError as error:
        raise BackendError(f"reading {path}", str(error), transient=False) from error


def info(family: Family, table: str) -> Info | None:
    """Return the size of a table, None if it does not exist."""
    if table not in tables(family):
        return None
    buffer = ctypes.create_string_buffer(table.encode(), _GETINFO.size)
    _ask(family, _GET_INFO, buffer, f"asking for the size of the legacy table {table}")
    *_, entries, size_bytes = _GETINFO.unpack(buffer.raw)
    return Info(entries, size_bytes)


def require_match(family: Family, name: str) -> None:
    """Raise BackendError unless rules can have a match, in its first revision."""
    buffer = ctypes.create_string_buffer(name.encode(), _REVISION_SIZE)
    _ask(family, _GET_MATCH_REVISION[family], buffer, f"asking for the legacy match {name}")


def _ask(family: Family, option: int, buffer: ctypes.Array[ctypes.c_char], doing: str) -> None:
    """Let the kernel fill a buffer. Raises BackendError."""
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_uint32(len(buffer))
    try:
        with socket.socket(_AF[family], socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
            failed = libc.getsockopt(
                asking.fileno(), _LEVEL[family], option, buffer, ctypes.byref(length)
            )
    except OSError as error:
        raise BackendError(doing, str(error), transient=False) from error
    if failed:
        raise BackendError(doing, os.strerror(ctypes.get_errno()), transient=True)
