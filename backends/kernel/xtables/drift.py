"""Noticing, cheaply, that somebody else may have changed our tables."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from backends.kernel import nft
from backends.kernel.transactions import Transactions, TransactionWatch
from backends.kernel.xtables import legacy
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family


class DriftDetector(Protocol):
    """Remembers what the tables looked like, and compares.

    What it remembers is from before our last reading or after our last writing, so that a change
    by others at any moment since then is found.
    """

    def reading(self) -> None:
        """Note that our objects are about to be read."""

    def writing(self) -> None:
        """Note that we are about to write; until `written`, nothing is trusted."""

    def transaction(self) -> AbstractContextManager[None]:
        """Surround one transaction of ours."""

    def written(self) -> None:
        """Note that we have written."""

    def disturbed(self) -> bool:
        """Say whether others may have changed something since."""


def watch(
    *, family: Family, variant: Variant, ours: Ours, transactions: Transactions
) -> DriftDetector:
    """Return the watch for a variant; `transactions` are those of all families."""
    if variant is Variant.LEGACY:
        return _LegacyWatch(family, ours.tables)
    return TransactionWatch(transactions, lambda: nft.chains_digest(family, ours.pattern))


class _LegacyWatch:
    """Compares the number and the size of each table's entries.

    A change by others in the instant between our write and our look at the result stays unseen
    until the next full reading.
    """

    def __init__(self, family: Family, tables: Iterable[str]) -> None:
        self._family = family
        self._tables = tables
        self._last: list[legacy.Info | None] | None = None  # None: nothing is trusted
        self._trusted_before_writing = False

    def reading(self) -> None:
        self._last = self._infos()

    def writing(self) -> None:
        self._trusted_before_writing = not self.disturbed()
        self._last = None

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()  # the kernel does not count them

    def written(self) -> None:
        self._last = self._infos() if self._trusted_before_writing else None

    def disturbed(self) -> bool:
        return self._last is None or self._last != self._infos()

    def _infos(self) -> list[legacy.Info | None]:
        return [legacy.info(self._family, table) for table in self._tables]
