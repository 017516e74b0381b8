"""When one family is written, read and asked. Decides only: times come in, times go out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from kproxy.run.loop.settings import LoopSettings

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0  # what came meanwhile waits for so long once the kernel takes it again
_JITTER = 0.5  # a pause is up to this share longer, so that two families or nodes fall out of step
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
        self._queued = False
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
        """Note that there is something to write."""
        self._queued = True

    def next_at(self) -> float:
        """Return when something is due, infinity if nothing will be."""
        if self._refusals.failures:
            return self._refusals.at
        return min(self._write_at(), self._next_look_at(), self._poll_at)

    def due(self, now: float) -> Due:
        """Say what is due."""
        if self._refusals.failures:
            return Due(write=now >= self._refusals.at, look=False)
        return Due(write=now >= self._write_at(), look=now >= self._next_look_at())

    def started(self) -> None:
        """Note that all that was queued is being written; what is queued from now on is not."""
        self._queued = False

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

    def wrote(self, now: float) -> None:
        """Note that the kernel has all that was queued when the write was started.

        It counts even if the kernel had it before: looking for stale flows is work as well. What
        only was repaired does not count, or repairs without end would keep changes waiting.
        """
        self._free_at = now + self._settings.min_interval_s

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

    def _write_at(self) -> float:
        return min(self._free_at if self._queued else math.inf, self._leftovers.at)

    def _spacing_s(self) -> float:
        """Return the time from the start of the last full read to one that a doubt causes."""
        spacing_s = self._settings.look_spacing_s
        if self._in_vain < _NOISY_AFTER:
            return spacing_s
        return max(spacing_s, min(_NOISY_EVERY * self._look_s, _NOISY_SPACING_S))

    def _next_look_at(self) -> float:
        return self._look_at if self._doubted else self._audit_at
