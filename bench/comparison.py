"""What got better or worse from one run to another, and what is noise.

A change is told if it is larger than a threshold, and also

- beyond the noise of its measure, which all figures of that measure in both runs tell together; the
  chance that any figure at all is told by mistake is bounded;
- beyond the noise of the figure itself;
- not the machine's: where the physical limit was measured in the same rounds, figures are compared
  against it, as a machine that is slower today slows both, and what disturbs a round disturbs both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.model import Figure, Results, Rounds
from bench.noise import (
    Spread,
    degrees_of_freedom,
    deviation,
    ratios,
    shift,
    spread,
    standard_error,
    student,
    usual_deviation,
)

Verdict = Literal["worse", "better", "same", "unclear"]

# Peers without a proxy. The first one that was measured beside a figure is its reference.
REFERENCES = ("plain routing", "straight to the endpoint")

FEWEST_ROUNDS = 3
_FEWEST_DEGREES = 10  # of freedom, in the noise of a measure
_OWN_CHANCE = 0.01  # that a figure's own noise, alone, would let it be told by mistake

_Figures = Mapping[Figure, Rounds]
_Measure = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure moved, relative to what it was. `against` names its reference, "" for none."""

    figure: Figure
    before: Spread
    after: Spread
    change: float
    against: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of two runs; `missing` are only in the first run, `new` only in the second."""

    changes: tuple[Change, ...]
    missing: tuple[Figure, ...]
    new: tuple[Figure, ...]

    def of(self, verdict: Verdict) -> list[Change]:
        """Return the figures with this verdict."""
        return [each for each in self.changes if each.verdict == verdict]


def compare(before: Results, after: Results, *, threshold: float, chance: float) -> Comparison:
    """Compare the figures that both runs have.

    `threshold` is the smallest relative change that matters, `chance` how often any figure at all
    may be told although nothing changed.
    """
    one, other = before.figures(), after.figures()
    shared = [figure for figure in one if figure in other]
    each = chance / max(1, len(shared))
    views = [_View(series(shared, one, other), each) for series in (_absolute, _relative)]
    return Comparison(
        tuple(_change(figure, (one, other), views, threshold) for figure in shared),
        tuple(figure for figure in one if figure not in other),
        tuple(figure for figure in other if figure not in one),
    )


def reference(figure: Figure, figures: _Figures) -> Figure | None:
    """Return the figure of a peer without a proxy that was measured under the same circumstances.

    Of the circumstances those count that both name: plain routing may know of no Services.
    """
    if figure.who in REFERENCES:
        return None
    where = dict(figure.where)
    beside = [
        each
        for each in figures
        if each.who in REFERENCES
        and _measure(each) == _measure(figure)
        and all(where.get(name, value) == value for name, value in each.where)
    ]
    return min(beside, key=lambda each: REFERENCES.index(each.who), default=None)


@dataclass(frozen=True, slots=True)
class _Series:
    """A figure in both runs, on a scale where noise does not grow with the value."""

    before: list[float]
    after: list[float]
    least_noise: float = 0.0

    @property
    def both(self) -> tuple[list[float], list[float]]:
        return self.before, self.after


class _View:
    """One way to look at figures: what noise each measure has there, and what is beyond it."""

    def __init__(self, series: Mapping[Figure, _Series], chance: float) -> None:
        self._series = series
        self._chance = chance
        measures: dict[_Measure, list[_Series]] = {}
        for figure, each in series.items():
            measures.setdefault(_measure(figure), []).append(each)
        self._noise = {measure: _noise(alike) for measure, alike in measures.items()}

    def __contains__(self, figure: Figure) -> bool:
        return figure in self._series

    def shift(self, figure: Figure) -> float:
        """Return by how much a figure moved."""
        return shift(*self._series[figure].both)

    def least(self, figure: Figure) -> float:
        """Return by how much it must have moved to be beyond the noise; infinite if nothing is."""
        series = self._series[figure]
        rounds = len(series.before), len(series.after)
        noise, freedom = self._noise[_measure(figure)]
        if min(rounds) < FEWEST_ROUNDS or freedom < _FEWEST_DEGREES:
            return math.inf
        own = max(series.least_noise, deviation(series.both))
        return max(
            student(self._chance, freedom) * standard_error(noise, *rounds),
            student(_OWN_CHANCE, sum(rounds) - 2) * standard_error(own, *rounds),
        )

    def is_logarithmic(self, figure: Figure) -> bool:
        """Say whether shifts are logarithms of ratios."""
        return self._series[figure].least_noise == 0


def _noise(alike: list[_Series]) -> tuple[float, int]:
    """Return the deviation of a measure, and the degrees of freedom that tell of it."""
    values = [each for series in alike for each in series.both]
    least = max(series.least_noise for series in alike)
    # An estimate by quantiles wastes half of them.
    return max(least, usual_deviation(values)), degrees_of_freedom(values) // 2


def _absolute(shared: list[Figure], one: _Figures, other: _Figures) -> dict[Figure, _Series]:
    """Return figures as they are: their logarithms, or counts where a measure knows zero."""
    counts = {_measure(figure) for figure in shared if _smallest(one[figure], other[figure]) <= 0}
    return {
        figure: _Series(
            [_of_count(value) for value in one[figure].values.values()],
            [_of_count(value) for value in other[figure].values.values()],
            1.0,
        )
        if _measure(figure) in counts
        else _Series(
            [math.log(value) for value in one[figure].values.values()],
            [math.log(value) for value in other[figure].values.values()],
        )
        for figure in shared
    }


def _relative(shared: list[Figure], one: _Figures, other: _Figures) -> dict[Figure, _Series]:
    """Return the logarithms of figures against their reference, round by round."""
    series = {}
    for figure in shared:
        limit = reference(figure, one)
        if limit is None or limit not in other:
            continue
        before, after = (ratios(each[figure].values, each[limit].values) for each in (one, other))
        if before and after and min(before + after) > 0:
            series[figure] = _Series([*map(math.log, before)], [*map(math.log, after)])
    return series


def _smallest(*rounds: Rounds) -> float:
    return min(value for each in rounds for value in each.values.values())


def _of_count(count: float) -> float:
    """Return a count on a scale where what is left to chance deviates by 1 (Anscombe)."""
    return 2 * math.sqrt(max(0.0, count) + 3 / 8)


def _measure(figure: Figure) -> _Measure:
    return figure.part, figure.measure, figure.unit


def _change(
    figure: Figure, runs: tuple[_Figures, _Figures], views: list[_View], threshold: float
) -> Change:
    old, new = (spread(each[figure].values.values()) for each in runs)
    absolute, relative = views
    limit = reference(figure, runs[0]) if figure in relative else None
    view = relative if limit else absolute
    moved, least = view.shift(figure), view.least(figure)
    change = (
        math.expm1(moved) if view.is_logarithmic(figure) else _relatively(old.median, new.median)
    )
    verdict: Verdict = "same"
    if math.isinf(least):
        verdict = "unclear"
    elif (
        abs(change) >= threshold
        and abs(moved) > least
        # Otherwise it was rather the reference that changed.
        and absolute.shift(figure) * math.copysign(1, change) > abs(moved) / 2
    ):
        verdict = "better" if (change > 0) == (runs[1][figure].better == "more") else "worse"
    return Change(figure, old, new, change, limit.who if limit else "", verdict)


def _relatively(old: float, new: float) -> float:
    if old:
        return new / old - 1
    return math.inf if new else 0.0
