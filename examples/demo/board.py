"""What has been seen so far: the figures that the screen shows and the exit code follows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from examples.demo.plan import Caller, Expected
from examples.demo.traffic import Sample

_RECENT_S = 1.0


@dataclass(slots=True)
class Tally:
    """One caller's requests."""

    good: int = 0
    failed: int = 0
    took_s: list[float] = field(default_factory=list)  # of those that were answered or refused
    pods: Counter[str] = field(default_factory=Counter)
    seen: str = ""  # the client's address as the last pod saw it


@dataclass(slots=True)
class Step:
    """One change of the rollout, written to the manifests at `at_s`.

    The packets followed when `pod` got its first request after it, or (`leaving`) its last one.
    """

    at_s: float
    pod: str
    leaving: bool
    seen_s: float | None = None

    @property
    def followed_s(self) -> float | None:
        """How long the packets took to follow, None while that is not known."""
        return None if self.seen_s is None else max(0.0, self.seen_s - self.at_s)


class Board:
    """Takes samples in, and knows how often, how fast and where to."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self.tallies = [Tally() for _ in callers]
        self.states: dict[str, str] = {}  # of the pods in the rollout
        self.steps: list[Step] = []
        self.failures: list[Sample] = []
        self._recent: deque[Sample] = deque()

    @property
    def sent(self) -> int:
        """How many requests have come to an end."""
        return sum(tally.good + tally.failed for tally in self.tallies)

    @property
    def failed(self) -> int:
        """How many of them went wrong."""
        return len(self.failures)

    def take(self, samples: Iterable[Sample]) -> None:
        """Count these requests."""
        for sample in samples:
            tally = self.tallies[sample.caller]
            if sample.good:
                tally.good += 1
            else:
                tally.failed += 1
                self.failures.append(sample)
            if sample.outcome is not Expected.SILENCE:
                tally.took_s.append(sample.took_s)
            if sample.pod:
                tally.pods[sample.pod] += 1
                tally.seen = sample.seen
                self._recent.append(sample)
                self._follow(sample)

    def per_second(self, pod: str, now_s: float) -> float:
        """Return how many requests a pod answered in the last second."""
        while self._recent and self._recent[0].at_s < now_s - _RECENT_S:
            self._recent.popleft()
        return sum(sample.pod == pod for sample in self._recent) / _RECENT_S

    def _follow(self, sample: Sample) -> None:
        for step in self.steps:
            if step.pod != sample.pod or sample.at_s < step.at_s:
                continue
            if step.leaving:
                step.seen_s = max(step.seen_s or 0.0, sample.at_s)
            elif step.seen_s is None or sample.at_s < step.seen_s:
                step.seen_s = sample.at_s


def quantile_ms(took_s: list[float], share: float) -> float:
    """Return the value that `share` of a non-empty list does not exceed, in milliseconds."""
    return 1000 * sorted(took_s)[min(len(took_s) - 1, int(share * len(took_s)))]
