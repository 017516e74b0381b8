"""How long to wait for what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """All in seconds.

    - `answer_s`: for an answer to begin, and for a page to be complete. The API server gives up on
      a list after 60 s itself and says so.
    - `idle_s`: for a sign of life in a watch. The server sends a bookmark about every minute, so
      two of them are missing. Opening a watch again costs next to nothing if this was a mistake.
    - `mute_s`: a healthy server has sent a bookmark after that time. One whose etcd was restored
      from a backup says nothing at all to who asks for what comes after a version that it has not
      come to yet.
    - `watch_least_s`, `watch_most_s`: how long a watch is to last, by chance, so that the nodes of
      a cluster spread over its API servers (client-go's numbers).
    - `hasty_s`: a watch that ends so soon, having said nothing, was as good as refused.
    - `backoff_first_s`, `backoff_most_s`: the pauses between attempts, which begin anew after
      `backoff_reset_s` without one (client-go's numbers).
    - `missing_first_s`, `missing_most_s`: the pauses before a kind is asked for again that the
      server does not have.
    - `doubted_s`: how long such an answer is not believed once the kind was seen. An API server
      that has just started refuses all kinds of things until it has read its own rules.
    - `node_s`: how long the first delivery waits for the own Node once all else is there.
    """

    answer_s: float = 65.0
    idle_s: float = 150.0
    mute_s: float = 70.0
    watch_least_s: float = 300.0
    watch_most_s: float = 600.0
    hasty_s: float = 1.0
    backoff_first_s: float = 0.8
    backoff_most_s: float = 30.0
    backoff_reset_s: float = 120.0
    missing_first_s: float = 30.0
    missing_most_s: float = 300.0
    doubted_s: float = 60.0
    node_s: float = 30.0


class Backoff:
    """Pauses that double from `first_s` to `most_s`, each stretched by chance up to twofold.

    They begin anew once nobody asked for one for `reset_s`. `chance` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        first_s: float,
        most_s: float,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        reset_s: float = math.inf,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._clock = clock
        self._chance = chance
        self._reset_s = reset_s
        self._next_s = first_s
        self._asked_at = clock()

    def next_s(self) -> float:
        """Return how long to wait before the next attempt."""
        now = self._clock()
        if now - self._asked_at > self._reset_s:
            self._next_s = self._first_s
        pause_s = self._next_s * (1 + self._chance())
        self._next_s = min(2 * self._next_s, self._most_s)
        self._asked_at = now
        return pause_s


class Absence:
    """How long a kind has been missing on the server, and when to ask for it again."""

    def __init__(
        self, times: Times, *, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self._times = times
        self._clock = clock
        self._chance = chance
        self.seen()

    def seen(self) -> None:
        """Note that it is there."""
        self._since = math.inf
        self._pauses = Backoff(
            self._times.missing_first_s,
            self._times.missing_most_s,
            clock=self._clock,
            chance=self._chance,
        )

    def is_certain(self) -> bool:
        """Note that the server said it is missing; say whether it has said so for long enough."""
        self._since = min(self._since, self._clock())
        return self._clock() - self._since >= self._times.doubted_s

    def next_s(self) -> float:
        """Return how long to wait before asking again."""
        return self._pauses.next_s()
