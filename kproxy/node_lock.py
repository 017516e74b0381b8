"""One writer of rules in a network namespace at a time.

The lock is an abstract Unix socket: it belongs to the network namespace, as the rules do, needs no
file that a container would have to share, and goes with the process that holds it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

_NAME = "\0kproxy/rules"
_CREDENTIALS = struct.Struct("=iII")  # struct ucred of linux/socket.h: pid, uid, gid
_ROOT = 0


_WAITERS = 64  # each asks once who holds the lock, and that stays in the holder's backlog


def take(tell: Callable[[str], None], pause: Callable[[], None]) -> socket.socket | None:
    """Take the lock, waiting for whoever holds it; it is held until the socket is closed.

    Returns None if the holder is nobody who could write rules, and so must not keep us from it.
    `pause` is called between two tries, `tell` gets a line about why there is more than one.
    """
    lock = _bound()
    if lock is not None:
        return lock
    pid = _root_that_holds()
    if pid is None:
        tell("the lock against a second kproxy is held by a process without root; going on")
        return None
    tell(
        f"another kproxy (process {pid or 'in a container'}) writes rules in this network "
        "namespace; waiting until it ends"
    )
    while (lock := _bound()) is None:
        pause()
    return lock


def is_held() -> bool:
    """Say whether a running kproxy holds the lock."""
    lock = _bound()
    if lock is not None:
        lock.close()
        return False
    return _root_that_holds() is not None


def _bound() -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(_NAME)
        lock.listen(_WAITERS)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return lock


def _root_that_holds() -> int | None:
    """Return the process that holds the lock, 0 if it is in another PID namespace.

    None if it is not root's, or does not say: any user may take such a name.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_NAME)
        except OSError:
            return None
        raw = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int
    uid: int
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid if uid == _ROOT else None
