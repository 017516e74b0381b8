"""One writer of rules in a network namespace at a time.

The lock is an abstract Unix socket: it belongs to the network namespace, as the rules do, needs no
file that a container would have to share, and goes with the process that holds it. Any user may
take such a name, so whoever finds it taken connects: the kernel then tells whose it is.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_NAME = "\0kproxy/rules"
_CREDENTIALS = struct.Struct("=iII")  # struct ucred of linux/socket.h: pid, uid, gid
_ROOT = 0
_ASKING_AT_ONCE = 64
_MUTE_TRIES = 20  # a kproxy that begins or ends cannot be asked for a moment
_WITHOUT_DESCRIPTORS_S = 1.0


class Held(Exception):
    """A running kproxy has the lock; the text says what that means and what to do."""

    def __init__(self) -> None:
        super().__init__("a kproxy runs here and would write its rules again: stop it first")


class NodeLock:
    """The lock, until it is closed or the process ends; a thread lets others ask whose it is."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._thread = threading.Thread(target=self._answer, name="node lock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let another one have it."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _answer(self) -> None:
        """Take connections off the queue: where it is full, nobody can ask any more."""
        while True:
            try:
                asking, _ = self._listening.accept()
                asking.close()
            except OSError as error:
                if error.errno == errno.EINVAL:  # closed
                    return
                time.sleep(_WITHOUT_DESCRIPTORS_S)


class _Owner(NamedTuple):
    """A process, 0 if it is in another PID namespace, and its user."""

    pid: int
    uid: int


def take(
    tell: Callable[[str], None], pause: Callable[[], None], *, wait: bool = True
) -> NodeLock | None:
    """Take the lock, waiting for the kproxy that holds it; without `wait` raise Held then.

    Returns None if the holder is nobody who could write rules, and so must not keep us from it.
    `pause` is called between two tries, `tell` gets a line about why there is more than one.
    """
    mute = 0
    said = False
    while (lock := _bound()) is None:
        owner = _owner()
        mute = mute + 1 if owner is None else 0
        if mute > _MUTE_TRIES or (owner is not None and owner.uid != _ROOT):
            tell("the lock against a second kproxy is held by a process without root; going on")
            return None
        if owner is not None and not wait:
            raise Held
        if owner is not None and not said:
            said = True
            tell(
                f"another kproxy (process {owner.pid or 'in a container'}) writes rules in this "
                "network namespace; waiting until it ends"
            )
        pause()
    return lock


def _bound() -> NodeLock | None:
    with contextlib.ExitStack() as undo:
        made = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            made.bind(_NAME)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        made.listen(_ASKING_AT_ONCE)
        undo.pop_all()
        return NodeLock(made)


def _owner() -> _Owner | None:
    """Return who holds the lock, None if nobody answers at this moment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(_NAME)
        except OSError:
            return None
        raw = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return _Owner(pid, uid)
