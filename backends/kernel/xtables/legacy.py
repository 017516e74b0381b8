"""What the kernel tells at once of the legacy variant's tables: which exist, and how big they are.

Structures: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
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
# IP(6)T_SO_GET_REVISION_MATCH and …_TARGET
_GET_MATCH_REVISION = {Family.IPV4: 66, Family.IPV6: 68}
_GET_TARGET_REVISION = {Family.IPV4: 67, Family.IPV6: 69}
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


def knows(family: Family, name: str, *, target: bool) -> bool:
    """Say whether rules can have a match or a target, in whatever revision. Raises BackendError."""
    buffer = ctypes.create_string_buffer(name.encode(), _REVISION_SIZE)
    option = (_GET_TARGET_REVISION if target else _GET_MATCH_REVISION)[family]
    code = _answer(family, option, buffer, f"asking for the legacy extension {name}")
    if code not in (0, errno.ENOENT, errno.EPROTONOSUPPORT):
        doing = f"asking for the legacy extension {name}"
        raise BackendError(doing, os.strerror(code), transient=False)
    return code != errno.ENOENT


def _ask(family: Family, option: int, buffer: ctypes.Array[ctypes.c_char], doing: str) -> None:
    """Let the kernel fill a buffer. Raises BackendError."""
    code = _answer(family, option, buffer, doing)
    if code:
        raise BackendError(doing, os.strerror(code), transient=True)


def _answer(family: Family, option: int, buffer: ctypes.Array[ctypes.c_char], doing: str) -> int:
    """Let the kernel fill a buffer; return its error number, 0 for success. Raises BackendError."""
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_uint32(len(buffer))
    try:
        with socket.socket(_AF[family], socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
            failed = libc.getsockopt(
                asking.fileno(), _LEVEL[family], option, buffer, ctypes.byref(length)
            )
    except PermissionError as error:
        raise BackendError(doing, "needs CAP_NET_RAW", transient=False) from error
    except OSError as error:
        raise BackendError(doing, str(error), transient=False) from error
    return ctypes.get_errno() if failed else 0
