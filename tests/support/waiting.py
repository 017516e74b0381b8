"""Waiting for something to come true."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 60.0
"""Nothing takes so long unless it is broken, however busy the machine is.

How soon the proxy promises to do something is tested with a clock that is handed in.
"""

_PAUSE_S = 0.02


def until(condition: Callable[[], object], *, within_s: float, what: str) -> float:
    """Wait until `condition` holds; return after how many seconds it did.

    Fails, naming `what` was waited for and the last answer, if the time is up before.
    """
    started = time.monotonic()
    while True:
        asked = time.monotonic() - started
        last = condition()
        if last:
            return asked
        assert asked < within_s, f"not within {within_s} s: {what} (the last answer was {last!r})"
        time.sleep(_PAUSE_S)


def holds(condition: Callable[[], object], *, for_s: float, what: str) -> None:
    """Check again and again, for so long, that `condition` holds."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        assert condition(), f"no longer: {what}"
        time.sleep(_PAUSE_S)
