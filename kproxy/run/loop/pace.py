"""When one family is written, read and asked. Decides only: times come in, times go out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kproxy.run.loop.settings import LoopSettings

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0  # what came meanwhile waits for so long once the kernel takes it again
_LONGEST_UNHELD_S = 120.0  # a try costs a refused write, which is as dear as any
_JITTER = 0.5  # a pause is up to this share longer, so that two families or nodes fall out of step
_WRITE_EVERY = 4  # times as long as a write took: writing takes a fifth of the time at most
_SHORTEST_INTERVAL_S = 0.01
_LONGEST_INTERVAL_S = 1.0
_CROWD = 20.0  # so many changes a second leave no better answer than the longest interval
_AUDIT_EVERY = 50  # times as long as a full read takes: audits cost 2 % of the time at most
_NOISY_AFTER = 3  # so many reads in a row that found nothing: the neighbours' writes prove little
_NOISY_EVERY = 20  # times as long as a full read takes, so that those cost 5 % of the time
_NOISY_SPACING_S = 10.0  # but what is wrong does not stay so for much longer than this


class Retry:
    """Pauses that double with each failure in a row; `at` is when to try again."""

    def __init__(self, cap_s: float, random: Callable[[], float]) -> None:
        self._cap_s = cap_s
        self._random = random
        self.failures = 0
        self.at = math.inf

    def failed(self, now: float) -> None:
        """Note a failure and set when to try again."""
        pause_s = _FIRST_PAUSE_S * 2 ** min(self.failures, 16) * (1 + _JITTER * self._random())
        self.failures += 1
        self.at = now + min(self._cap_s, pause_s)

    def worked(self) -> None:
        """Note that it worked: nothing is to be tried again."""
        self.failures = 0
        self.at = math.inf


@dataclass(frozen=True, slots=True)
class Due:
    """What to do now. A poll is due whenever a pace is, so it has no field."""

    write: bool
    look: bool
    retry: bool = False


class Pace:
    """The timing of one family. All times are seconds of one monotonic clock.

    Nothing is due before the first `queued`. While the kernel refuses, the retry alone is due: it
    reads everything anyway, and new changes do not shorten its pause.
    """

    def __init__(self, settings: LoopSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        cap_s = min(_LONGEST_PAUSE_S, settings.sync_period_s)
        self._refusals = Retry(cap_s, random)
        self._leftovers = Retry(cap_s, random)
        self._unheld = Retry(_LONGEST_UNHELD_S, random)
        self._queued = 0
        self._taken = 0  # so many changes are in the write that was started last
        self._recent = 0.0  # changes that were written, each counting less with every second
        self._wrote_at = -math.inf
        self._doubted = False
        self._in_vain = 0  # full reads in a row that a foreign write caused, and found nothing
        self._look_s = 0.0  # how long the last full read took
        self._free_at = -math.inf
        self._poll_at = math.inf
        self._look_at = -math.inf
        self._audit_at = math.inf

    @property
    def failures(self) -> int:
        """How often the kernel has refused since it last did what we asked."""
        return self._refusals.failures

    def queued(self) -> None:
        """Note that there is one more change to write."""
        self._queued += 1

    def next_at(self) -> float:
        """Return when something is due, infinity if nothing will be."""
        if self._refusals.failures:
            return self._refusals.at
        return min(self._write_at(), self._next_look_at(), self._poll_at)

    def due(self, now: float) -> Due:
        """Say what is due."""
        if self._refusals.failures:
            return Due(write=now >= self._refusals.at, look=False)
        return Due(
            write=now >= self._write_at(),
            look=now >= self._next_look_at(),
            retry=now >= self._unheld.at,
        )

    def started(self) -> None:
        """Note that all that was queued is being written; what is queued from now on is not."""
        self._taken, self._queued = self._queued, 0

    def polled(self, now: float, *, disturbed: bool) -> None:
        """Note the answer to whether somebody else wrote; True holds until the next look."""
        self._poll_at = now + self._settings.drift_poll_s
        self._doubted = self._doubted or disturbed

    def looked(self, started: float, now: float, *, wrote: bool) -> None:
        """Note a full read from `started` to `now`, and whether it led to a write.

        At most half of all time goes into reading and repairing.
        """
        if not wrote:
            self._look_s = now - started  # else the write is in it
        self._in_vain = self._in_vain + 1 if self._doubted and not wrote else 0
        self._doubted = False
        self._look_at = max(started + self._spacing_s(), now + (now - started))
        self._audit_at = now + max(self._settings.sync_period_s, _AUDIT_EVERY * self._look_s)

    def wrote(self, started: float, now: float) -> None:
        """Note that the kernel has all that was queued when the write was started.

        It counts even if the kernel had it before: looking for stale flows is work as well. What
        only was repaired does not count, or repairs without end would keep changes waiting.
        """
        self._recent = self._recent * math.exp(self._wrote_at - now) + self._taken
        self._wrote_at = now
        chosen_s = self._settings.min_interval_s
        idle_s = max(0.0, started - self._free_at)
        interval_s = self._interval_s(now - started, idle_s) if chosen_s is None else chosen_s
        self._free_at = now + interval_s

    def worked(self) -> None:
        """Note that the kernel is as it should be."""
        self._refusals.worked()

    def refused(self, now: float) -> None:
        """Note that the kernel refused; the retry comes after a growing pause."""
        self._refusals.failed(now)

    def left_over(self, now: float, *, something: bool) -> None:
        """Note whether work around a successful write has to be done again."""
        if something:
            self._leftovers.failed(now)
        else:
            self._leftovers.worked()

    def unheld(self, now: float, *, something: bool, tried: bool) -> None:
        """Note whether the kernel lacks service ports that it refused, and if those were tried."""
        if not something:
            self._unheld.worked()
        elif tried or not self._unheld.failures:
            self._unheld.failed(now)

    def _write_at(self) -> float:
        free_at = self._free_at if self._queued else math.inf
        return min(free_at, self._leftovers.at, self._unheld.at)

    def _interval_s(self, cost_s: float, idle_s: float) -> float:
        """Return how long no change is written after a write that took `cost_s`.

        `idle_s` before it nothing was written although it might have been: that counts, so a
        second change soon after a first one seldom waits. Where changes crowd, one write for many
        spares more than each of them loses.
        """
        rest_s = min(_WRITE_EVERY * cost_s, _LONGEST_INTERVAL_S) - idle_s
        crowd = (self._recent + self._queued) / _CROWD
        return max(rest_s, min(crowd**2, 1) * _LONGEST_INTERVAL_S, _SHORTEST_INTERVAL_S)

    def _spacing_s(self) -> float:
        """Return the time from the start of the last full read to one that a doubt causes."""
        spacing_s = self._settings.look_spacing_s
        if self._in_vain < _NOISY_AFTER:
            return spacing_s
        return max(spacing_s, min(_NOISY_EVERY * self._look_s, _NOISY_SPACING_S))

    def _next_look_at(self) -> float:
        return self._look_at if self._doubted else self._audit_at
