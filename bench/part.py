"""What a part of the bench is: something that is measured, once a round, of everybody.

A part names itself and its measures, makes what it needs, and hands out visits: one for each
proxy or peer and each set of circumstances. The runner makes the visits of a part in rounds, each
round in another order, and writes down what they find.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.bed import Bed
from bench.model import Better, Quantile, Value
from bench.parameters import Parameters, Size


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured, in which unit, and whether more of it is better or less."""

    name: str
    unit: str
    better: Better


@dataclass(frozen=True, slots=True)
class Found:
    """One value of a measure."""

    measure: Measure
    value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How many values of a measure are spread."""

    measure: Measure
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True)
class Limited:
    """Why a figure is not better, or worse than it seems: said once in a run."""

    text: str


Finding = Found | Spread | Limited


@dataclass(frozen=True, slots=True)
class Visit:
    """Of whom something is measured, under which circumstances, and how."""

    who: str
    where: Mapping[str, Value]
    go: Callable[[], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What all rounds of a visit have found of a measure."""

    visit: Visit
    measure: Measure
    values: dict[int, float]  # by round


class Part(ABC):
    """Something that is measured."""

    name: str
    about: str
    """One sentence for `--help`."""
    measures: Sequence[Measure]
    warms_up = True
    """Whether each visit is made once before the first round, not counted."""

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return the sizes of cluster at which it is measured."""
        return parameters.sizes

    def repeats(self, parameters: Parameters) -> int:
        """Return how many rounds it has."""
        return parameters.repeats

    @abstractmethod
    def visits(self, bed: Bed) -> AbstractContextManager[Sequence[Visit]]:
        """Make what is needed, hand out the visits, and take all of it away."""

    def judged(self, found: Sequence[Rounds]) -> Iterable[tuple[Visit, Limited]]:
        """Return what limited figures, where all rounds of everybody together tell it."""
        return ()


def largest(parameters: Parameters) -> Sequence[Size]:
    """Return the size that a part is measured at if another one would not change its figures."""
    return (max(parameters.sizes),)


def circumstances(size: Size, **more: Value) -> dict[str, Value]:
    """Return the circumstances of a figure at a size of cluster."""
    return {"services": size.services, "endpoints": size.endpoints, **more}
