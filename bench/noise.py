"""What several rounds say of a figure: its middle, its spread, and which differences are noise.

A machine that others use disturbs some rounds by much, so each middle is a median. Only the
standard library is needed: scipy.stats would be a hundred megabytes for these few lines.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Of the Hodges-Lehmann estimate, against the difference of two means of normal noise.
_EFFICIENCY = 3 / math.pi
_MOST = 0.8


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of a figure's rounds, and how sure it is.

    The median of ever more rounds would lie between `low` and `high`, with the given confidence.
    """

    median: float
    low: float
    high: float
    confidence: float
    smallest: float
    largest: float
    count: int


def spread(values: Iterable[float], confidence: float = 0.95) -> Spread:
    """Return the spread of one round or more.

    The interval ends at two of the values, so nothing is assumed of how they are distributed: the
    k-th smallest and the k-th largest miss the median as often as a fair coin falls on one side
    less than k times. Few rounds cannot reach the confidence that is asked for; it says what they
    reach.
    """
    ordered = sorted(values)
    count = len(ordered)
    place, missed = 0, _outside(count, 0)
    while place + 1 < count / 2 and _outside(count, place + 1) <= 1 - confidence:
        place += 1
        missed = _outside(count, place)
    return Spread(
        statistics.median(ordered),
        ordered[place],
        ordered[-1 - place],
        1 - missed if count > 1 else 0.0,
        ordered[0],
        ordered[-1],
        count,
    )


def _outside(count: int, place: int) -> float:
    """Return how often the median is not between the values at `place` from both ends."""
    return float(2 * sum(math.comb(count, k) for k in range(place + 1)) / 2**count)


def ratios(values: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    """Return the ratio of two figures in each round that both have, in the order of rounds."""
    shared = sorted(values.keys() & baseline.keys())
    return [values[each] / baseline[each] for each in shared if baseline[each]]


def shift(before: Sequence[float], after: Sequence[float]) -> float:
    """Return by how much `after` lies higher: the median of all differences (Hodges-Lehmann).

    It stands disturbed rounds nearly as a median does, and wastes few of the others.
    """
    return statistics.median(b - a for a in before for b in after)


def deviation(groups: Iterable[Sequence[float]]) -> float:
    """Return the standard deviation that values have around the middle of their own group.

    Disturbed rounds count in full: with few rounds half of them may be disturbed by chance, and
    then no estimate of the middle withstands them.
    """
    squares, freedom = 0.0, 0
    for values in groups:
        if len(values) > 1:
            squares += statistics.variance(values) * (len(values) - 1)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def usual_deviation(groups: Iterable[Sequence[float]]) -> float:
    """Return the standard deviation in most rounds: those that were disturbed count little.

    It is what four of five differences between two rounds of a group tell, as if they were normal.
    """
    differences = sorted(
        abs(one - other) for values in groups for one, other in itertools.combinations(values, 2)
    )
    if not differences:
        return 0.0
    within = differences[math.ceil(_MOST * len(differences)) - 1]
    return within / (math.sqrt(2) * statistics.NormalDist().inv_cdf((1 + _MOST) / 2))


def degrees_of_freedom(groups: Iterable[Sequence[float]]) -> int:
    """Return how many values tell of the noise: one of each group tells of its middle."""
    return sum(len(values) - 1 for values in groups if values)


def standard_error(noise: float, before: int, after: int) -> float:
    """Return the standard error of `shift` between so many rounds."""
    return noise * math.sqrt((1 / before + 1 / after) / _EFFICIENCY)


def student(chance: float, freedom: int) -> float:
    """Return what Student's t exceeds, upwards or downwards, with this chance.

    Cornish and Fisher's expansion (Abramowitz and Stegun, 26.7.5): good to one per cent for a
    chance of one in a million from 10 degrees of freedom on, for one in a hundred from 4 on.
    """
    z = statistics.NormalDist().inv_cdf(1 - chance / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))
