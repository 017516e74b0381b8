"""Telling what others write to nf_tables from what we do, whichever of our threads it is."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backends.kernel import nft

_ALL = 2**32  # the kernel's count begins anew after so many
_PATIENCE_S = 1.0  # with a write of the other family that is just ending


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
        self._state = threading.Condition()
        self._made = 0
        self._open: list[int] = []  # of each that has begun, the generation before it

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Make a transaction within this block, which raises if the kernel refused it.

        One that was made all the same, by a child that had to be killed, passes for another's.
        """
        with self._state:
            before = nft.generation()
            self._open.append(before)
        made = 0
        try:
            yield
            made = 1
        finally:
            with self._state:
                self._open.remove(before)
                self._made += made
                self._state.notify_all()

    def foreign(self) -> Foreign:
        """Return how many transactions others have made until now. Raises BackendError.

        Unsure is it while one of ours has begun and the generation has moved since.
        """
        with self._state:  # so that none of ours is counted on one side only, but for open ones
            now = nft.generation()
            moved = (now - self._open[0]) % _ALL if self._open else 0
            return Foreign((now - self._made) % _ALL, min(len(self._open), moved))

    def surely_foreign(self, within_s: float) -> int | None:
        """Return how many others have made, None if that is still unsure after some time.

        Raises BackendError.
        """
        ends_at = time.monotonic() + within_s
        with self._state:
            while True:
                now = self.foreign()
                left_s = ends_at - time.monotonic()
                if not now.unsure or left_s <= 0:
                    return None if now.unsure else now.most
                self._state.wait(left_s)


class TransactionWatch:
    """Notices that others may have changed objects of ours in nf_tables.

    Compares how many transactions they made and, when that moved, what `digest` returns of our
    objects. What it remembers is from before our last reading or after our last writing.
    """

    def __init__(self, transactions: Transactions, digest: Callable[[], bytes]) -> None:
        self._transactions = transactions
        self._digest = digest
        self._foreign: int | None = None  # others' that left us alone; None: nothing is trusted
        self._before_writing: int | None = None
        self._ours: bytes | None = None  # None: not looked at since our last write

    def reading(self) -> None:
        """Note that our objects are about to be read."""
        self._foreign = self._transactions.surely_foreign(within_s=_PATIENCE_S)
        self._ours = self._digest()

    def writing(self) -> None:
        """Note that we are about to write; until `written`, nothing is trusted."""
        self._before_writing = None if self._changed() else self._foreign
        self._foreign = self._ours = None

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Surround one transaction of ours."""
        return self._transactions.one()

    def written(self) -> None:
        """Note that we have written."""
        self._foreign = self._before_writing

    def disturbed(self) -> bool:
        """Say whether others may have changed something since."""
        if self._changed():
            return True
        if self._foreign is not None and self._ours is None:
            # An idle moment pays for the digest, not each of our own commits.
            ours = self._digest()
            if self._transactions.foreign().since(self._foreign) == 0:
                self._ours = ours
        return False

    def _changed(self) -> bool:
        """Say whether others did something; what may be the other family's is asked again later."""
        if self._foreign is None:
            return True
        now = self._transactions.foreign()
        since = now.since(self._foreign)
        if since == 0:
            return False
        if self._ours is None:
            return since > now.unsure
        if self._digest() != self._ours:
            return True
        if not now.unsure:
            self._foreign = now.most
        return False
