"""Noticing, cheaply, that somebody else may have changed our tables."""

from __future__ import annotations

from typing import Protocol

from backends.iptables.render.rules import CHAIN_PREFIX, TABLES
from backends.kernel import nft
from backends.kernel.xtables import legacy
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

    def written(self, transactions: int) -> None:
        """Note that we have written, in so many transactions."""

    def disturbed(self) -> bool:
        """Say whether others may have changed something since."""


def watch(family: Family, variant: Variant) -> DriftDetector:
    """Return the watch for a variant."""
    return _LegacyWatch(family) if variant is Variant.LEGACY else _NfTablesWatch(family)


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

    def written(self, transactions: int) -> None:
        del transactions  # the kernel does not count them
        self._last = self._infos() if self._trusted_before_writing else None

    def disturbed(self) -> bool:
        return self._last is None or self._last != self._infos()

    def _infos(self) -> list[legacy.Info | None]:
        return [legacy.info(self._family, table) for table in TABLES]


class _NfTablesWatch:
    """Compares the ruleset's generation and, when that moved, a digest of our chains.

    The kernel counts every transaction of anybody. A poll of the count cannot lose an event as
    a socket with a full queue can.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._generation: int | None = None  # None: nothing is trusted
        self._before_writing: int | None = None
        self._chains: bytes | None = None  # None: not looked at since our last write

    def reading(self) -> None:
        self._generation = nft.generation()
        self._chains = self._digest()

    def writing(self) -> None:
        self._before_writing = None if self._changed() else self._generation
        self._generation = None

    def written(self, transactions: int) -> None:
        """Trust that nobody else wrote meanwhile; if somebody did, the count will be off."""
        if self._before_writing is not None:
            self._generation = (self._before_writing + transactions) % 2**32
            self._chains = None

    def disturbed(self) -> bool:
        if self._changed():
            return True
        if self._chains is None:
            # An idle moment pays for the digest, not each of our own commits.
            chains = self._digest()
            if nft.generation() == self._generation:
                self._chains = chains
        return False

    def _digest(self) -> bytes:
        return nft.chains_digest(self._family, CHAIN_PREFIX)

    def _changed(self) -> bool:
        if self._generation is None:
            return True
        now = nft.generation()
        if now != self._generation:
            if (
                self._chains is None
                or nft.chains_digest(self._family, CHAIN_PREFIX) != self._chains
            ):
                return True
            self._generation = now
        return False
