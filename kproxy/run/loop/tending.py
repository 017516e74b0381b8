"""When a data path is asked to look after itself, apart from any change of a table."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from kproxy.run.loop.pace import Retry
from kproxy.run.loop.worker import NotTended, Tended

TEND_BUDGET_S = 0.01  # a change waits no longer for it

_PERIOD_S = 1.0
_LONGEST_PAUSE_S = 30.0


class Tending:
    """The times at which one family's data path is tended, and the descriptor by which it asks.

    Nothing is due before the first `in_force`. Lives in the event loop, which calls `asked` when
    the descriptor is readable.
    """

    def __init__(self, random: Callable[[], float], asked: Callable[[], None]) -> None:
        self._retry = Retry(_LONGEST_PAUSE_S, random)
        self._asked = asked
        self._at = math.inf
        self._descriptor: int | None = None

    def next_at(self) -> float:
        """Return when it is due, infinity if it never will be."""
        return self._retry.at if self._retry.failures else self._at

    def in_force(self, now: float) -> None:
        """Note a successful write, which may have left something to do."""
        self._at = min(self._at, now)

    def begins(self) -> None:
        """Note that it is done now: a descriptor stays readable until then, and is not watched."""
        self._watch(None)

    def ended(self, outcome: Tended | NotTended, now: float) -> None:
        """Learn how it went."""
        match outcome:
            case Tended():
                self._retry.worked()
                self._at = now if outcome.more else now + _PERIOD_S
                self._watch(outcome.descriptor)
            case NotTended():
                self._retry.failed(now)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watch(None)

    def _watch(self, descriptor: int | None) -> None:
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            loop.remove_reader(self._descriptor)
        self._descriptor = descriptor
        if descriptor is not None:
            loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        self._watch(None)
        self._at = asyncio.get_running_loop().time()
        self._asked()
