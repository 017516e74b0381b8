"""Waiting for something to come true."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SLOWER = float(os.environ.get("KPROXY_TESTS_SLOWER", "1"))
"""How many times slower than usual this machine is: an emulated one is, and says so here."""

LONGEST_S = 60.0 * SLOWER
"""Nothing takes so long unless it is broken, however busy the machine is.

How soon the proxy promises to do something is tested with a clock that is handed in.
"""

_PAUSE_S = 0.02


class NotInTime(AssertionError):
    """Something did not come true within its time."""


def until(
    condition: Callable[[], object], *, within_s: float, what: str | Callable[[], str]
) -> float:
    """Wait until `condition` holds; return after how many seconds it did.

    Fails, naming `what` was waited for and the last answer, if the time is up before. `what` is
    called then if it can be, to say how things are at that moment.
    """
    started = time.monotonic()
    while True:
        asked = time.monotonic() - started
        last = condition()
        if last:
            return asked
        if asked >= within_s:
            missing = what if isinstance(what, str) else what()
            raise NotInTime(f"not within {within_s} s: {missing} (the last answer: {last!r})")
        time.sleep(_PAUSE_S)


def until_said(
    words: str, *, said: Callable[[], str], runs: Callable[[], bool], within_s: float
) -> float:
    """Wait until a program has logged these words; return the seconds that it took.

    `said` returns its log. Fails with the log if it ends without them.
    """

    def seen() -> bool:
        may_go_on = runs()  # asked first: between the two it might say them and end
        log = said()
        assert may_go_on or words in log, f"it ended without {words!r}:\n{log}"
        return words in log

    return until(seen, within_s=within_s, what=lambda: f"{words!r} in the log:\n{said()}")


def holds(condition: Callable[[], object], *, for_s: float, what: str) -> None:
    """Check again and again, for so long, that `condition` holds."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        assert condition(), f"no longer: {what}"
        time.sleep(_PAUSE_S)
