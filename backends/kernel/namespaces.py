"""Network namespaces, which the kernel tells apart by a number that it never gives again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kproxy.ports.data_path import BackendError

OWN = "/proc/thread-self/ns/net"

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # Linux 5.14
_libc = ctypes.CDLL(None, use_errno=True)

Answer = TypeVar("Answer")


def cookie() -> int:
    """Return the number of the calling thread's network namespace. Raises BackendError."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            value = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError as error:
        doing = "asking for the number of a network namespace"
        raise BackendError(doing, str(error), transient=False) from error
    return int.from_bytes(value, sys.byteorder)


def inside(namespace: int, ask: Callable[[], Answer]) -> Answer:
    """Return what a function returns in the namespace of an open descriptor.

    It runs in a thread of its own, which ends: no other thread ever changes its namespace.
    Raises what `ask` raises, and OSError where the namespace must not be entered.
    """

    def work() -> Answer:
        _enter(namespace)
        return ask()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace") as pool:
        return pool.submit(work).result()


def cookies_at(paths: Iterable[str]) -> dict[str, int]:
    """Return the numbers of the namespaces at these paths, but for those that are gone.

    Raises PermissionError where this process may enter none.
    """
    found: dict[str, int] = {}

    def work() -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[path] = _cookie_at(path)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespaces") as pool:
        pool.submit(work).result()
    return found


def _cookie_at(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(descriptor)
    finally:
        os.close(descriptor)
    return cookie()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
