"""Noticing, cheaply, that somebody else may have changed our tables."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from backends.iptables.render.rules import CHAIN_PREFIX, TABLES
from backends.kernel import nft
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import legacy
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family

_PATIENCE_S = 1.0  # with a write of the other family that is just ending


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


def watch(family: Family, variant: Variant, transactions: Transactions) -> DriftDetector:
    """Return the watch for a variant; `transactions` are those of all families."""
    if variant is Variant.LEGACY:
        return _LegacyWatch(family)
    return _NfTablesWatch(family, transactions)


class _LegacyWatch:
    """Compares the number and the size of each table's entries.

    A change by others in the instant between our write and our look at the result stays unseen
    until the next full reading.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
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
        return [legacy.info(self._family, table) for table in TABLES]


class _NfTablesWatch:
    """Compares how many transactions others made and, when that moved, a digest of our chains."""

    def __init__(self, family: Family, transactions: Transactions) -> None:
        self._family = family
        self._transactions = transactions
        self._foreign: int | None = None  # others' that left us alone; None: nothing is trusted
        self._before_writing: int | None = None
        self._chains: bytes | None = None  # None: not looked at since our last write

    def reading(self) -> None:
        self._foreign = self._transactions.surely_foreign(within_s=_PATIENCE_S)
        self._chains = nft.chains_digest(self._family, CHAIN_PREFIX)

    def writing(self) -> None:
        self._before_writing = None if self._changed() else self._foreign
        self._foreign = self._chains = None

    def transaction(self) -> AbstractContextManager[None]:
        return self._transactions.one()

    def written(self) -> None:
        self._foreign = self._before_writing

    def disturbed(self) -> bool:
        if self._changed():
            return True
        if self._foreign is not None and self._chains is None:
            # An idle moment pays for the digest, not each of our own commits.
            chains = nft.chains_digest(self._family, CHAIN_PREFIX)
            if self._transactions.foreign().since(self._foreign) == 0:
                self._chains = chains
        return False

    def _changed(self) -> bool:
        """Say whether others did something; what may be the other family's is asked again later."""
        if self._foreign is None:
            return True
        now = self._transactions.foreign()
        since = now.since(self._foreign)
        if since == 0:
            return False
        if self._chains is None:
            return since > now.unsure
        if nft.chains_digest(self._family, CHAIN_PREFIX) != self._chains:
            return True
        if not now.unsure:
            self._foreign = now.most
        return False
