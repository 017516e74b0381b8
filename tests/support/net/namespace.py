"""Network namespaces without a name: they live as long as something refers to them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, held by a descriptor and gone when the last holder is gone.

    A namespace with a name would outlive a test run that is killed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        home = _current()
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            self.fd = _current()
        finally:
            _setns(home)
            os.close(home)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the body in this namespace: its sockets, its child processes and its /proc/sys/net.

        Holds for the calling thread and the threads and processes that it starts inside. Sockets
        made inside stay in this namespace afterwards.
        """
        before = _current()
        _setns(self.fd)
        try:
            yield
        finally:
            _setns(before)
            os.close(before)

    def sysctl(self, name: str, value: object) -> None:
        """Set a kernel setting of this namespace; `name` is a path below /proc/sys."""
        with self.entered(), open(f"/proc/sys/{name}", "w") as setting:
            setting.write(str(value))

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self.fd)


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _setns(fd: int) -> None:
    _check(_libc.setns(fd, _CLONE_NEWNET), "setns")


def _check(result: int, doing: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"{doing}: {os.strerror(error)}")
