"""Telling what others write to nf_tables from what we do, whichever of our threads it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

from backends.kernel import nft

_ALL = 2**32  # the kernel's count begins anew after so many


class Foreign(NamedTuple):
    """How many transactions others have made: `most`, or up to `unsure` fewer; modulo 2**32."""

    most: int
    unsure: int

    def since(self, earlier: int) -> int:
        """Return how many there were since a number of them, at most."""
        return (self.most - earlier) % _ALL


class Transactions:
    """Counts our transactions in one network namespace, from all threads.

    The kernel counts those of everybody and of every family together: what its count, the
    ruleset's generation, is ahead of ours is others'. A poll of it cannot lose an event, as a
    socket with a full queue can.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = 0
        self._open = 0  # begun, and perhaps counted by the kernel already

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Make a transaction within this block, which raises if the kernel refused it.

        One that was made all the same, by a child that had to be killed, passes for another's.
        """
        with self._lock:
            self._open += 1
        made = 0
        try:
            yield
            made = 1
        finally:
            with self._lock:
                self._open -= 1
                self._made += made

    def foreign(self) -> Foreign:
        """Return how many transactions others have made until now. Raises BackendError."""
        with self._lock:  # so that none of ours is counted on one side only, but for open ones
            return Foreign((nft.generation() - self._made) % _ALL, self._open)
