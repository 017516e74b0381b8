"""What the page of a run shows: which figures stand together, and what is said of them. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bench import wording
from bench.comparison import REFERENCES, reference
from bench.model import Better, Distribution, Figure, Limit, Results, Rounds, Value
from bench.noise import Spread, ratios, spread

Where = tuple[tuple[str, Value], ...]
PROXIES = ("kproxy", "kube-proxy")  # in the order of lists and plots
DATA_PATHS = ("iptables-legacy", "iptables-nft", "nftables", "ipvs", "ebpf")

_LEAST_POINTS = 2  # of a curve
_MEDIAN = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """A figure with everything that its rounds tell."""

    figure: Figure
    better: Better
    spread: Spread
    samples: tuple[float, ...]
    against: str
    ratio: float | None
    limits: tuple[int, ...]  # numbers of the part's limits, from 1


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures side by side under the same circumstances, one of each."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """How figures grow with a number: for everyone the rows in its order."""

    title: str
    along: str
    lines: Mapping[str, tuple[tuple[float, Row], ...]]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How the values of one measure are spread: for everyone the medians of rounds."""

    title: str
    lines: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured of one measure."""

    part: str
    measure: str
    unit: str
    better: Better
    panels: tuple[Panel, ...]
    curves: tuple[Curve, ...]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The measure with its unit; counts have none."""
        return wording.titled(self.measure, self.unit)


@dataclass(frozen=True, slots=True)
class Spreading:
    """How the values of one measure are spread, under each of its circumstances."""

    measure: str
    unit: str
    panels: tuple[Quantiles, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the run."""

    part: str
    measures: tuple[Measured, ...]
    spreadings: tuple[Spreading, ...]
    limits: tuple[Limit, ...]


def sections(results: Results) -> list[Section]:
    """Return the parts of a run in the order in which they were asked for."""
    figures = results.figures()
    found = dict.fromkeys(
        [*(figure.part for figure in figures), *(limit.part for limit in results.limits)]
    )
    asked = results.run.parameters.get("parts")
    order = [part for part in asked if part in found] if isinstance(asked, list) else []
    return [_section(part, figures, results) for part in dict.fromkeys([*order, *found])]


def rank(who: str) -> tuple[int, int, str]:
    """Return where somebody stands in each list and plot."""
    if who in REFERENCES:
        return 0, REFERENCES.index(who), who
    group = next((each for each, name in enumerate(PROXIES, 1) if who.startswith(name)), 3)
    path = next((each for each, name in enumerate(DATA_PATHS) if who.endswith(name)), 99)
    return group, path, who


def _section(part: str, figures: Mapping[Figure, Rounds], results: Results) -> Section:
    limits = tuple(each for each in results.limits if each.part == part)
    measures: dict[tuple[str, str], list[Row]] = {}
    for figure in sorted(
        (each for each in figures if each.part == part), key=lambda each: rank(each.who)
    ):
        row = _row(figure, figures, limits)
        measures.setdefault((figure.measure, figure.unit), []).append(row)
    order = list(dict.fromkeys((f.measure, f.unit) for f in figures if f.part == part))
    return Section(
        part,
        tuple(_measured(part, *each, measures[each]) for each in order),
        tuple(_spreadings(each for each in results.distributions if each.part == part)),
        limits,
    )


def _row(figure: Figure, figures: Mapping[Figure, Rounds], limits: tuple[Limit, ...]) -> Row:
    rounds = figures[figure]
    limit = reference(figure, figures)
    pairs = ratios(rounds.values, figures[limit].values) if limit else []
    return Row(
        figure,
        rounds.better,
        spread(rounds.values.values()),
        tuple(value for _, value in sorted(rounds.values.items())),
        limit.who if limit and pairs else "",
        statistics.median(pairs) if pairs else None,
        tuple(number for number, each in enumerate(limits, 1) if _is_limit(each, figure)),
    )


def _is_limit(limit: Limit, figure: Figure) -> bool:
    return limit.who == figure.who and limit.where.items() <= dict(figure.where).items()


def _measured(part: str, measure: str, unit: str, rows: list[Row]) -> Measured:
    curves = tuple(curve for along in _numbers(rows) for curve in _curves(rows, along))
    return Measured(part, measure, unit, rows[0].better, tuple(_panels(rows)), curves, tuple(rows))


def _numbers(rows: Iterable[Row]) -> list[str]:
    """Return the names of circumstances that are numbers and have several values."""
    values: dict[str, set[Value]] = {}
    for row in rows:
        for name, value in row.figure.where:
            if not isinstance(value, str):
                values.setdefault(name, set()).add(value)
    return [name for name, each in values.items() if len(each) >= _LEAST_POINTS]


def _panels(rows: list[Row]) -> Iterator[Panel]:
    """Yield figures side by side, of sizes only that with most of all: curves show the others."""
    varied = _numbers(rows)
    groups: dict[Where, list[Row]] = {}
    for row in rows:
        groups.setdefault(_without(row.figure.where, varied), []).append(row)
    common = _common(groups)
    for where, group in groups.items():
        largest = max(
            (_sizes(row, varied) for row in group), key=lambda each: (math.prod(each), each)
        )
        size = tuple(zip(varied, largest, strict=True)) if varied else ()
        title = wording.circumstances((*_without(where, common), *size))
        yield Panel(title, tuple(row for row in group if _sizes(row, varied) == largest))


def _sizes(row: Row, names: list[str]) -> tuple[float, ...]:
    where = dict(row.figure.where)
    return tuple(float(where.get(name, 0)) for name in names)


def _curves(rows: list[Row], along: str) -> Iterator[Curve]:
    """Yield a curve for each set of circumstances that has several values of a number."""
    groups: dict[Where, list[tuple[float, Row]]] = {}
    for row in rows:
        at = dict(row.figure.where).get(along)
        if at is not None:
            where = _without(row.figure.where, [along])
            groups.setdefault(where, []).append((float(at), row))
    several = {
        where: points
        for where, points in groups.items()
        if len({at for at, _ in points}) >= _LEAST_POINTS
    }
    common = _common(several)
    for where, points in several.items():
        lines: dict[str, list[tuple[float, Row]]] = {}
        for at, row in points:
            lines.setdefault(row.figure.who, []).append((at, row))
        yield Curve(
            wording.circumstances(_without(where, common)),
            along.replace("_", " "),
            {who: tuple(sorted(line, key=lambda each: each[0])) for who, line in lines.items()},
        )


def _spreadings(distributions: Iterable[Distribution]) -> Iterator[Spreading]:
    """Yield what more than the median is told of: a few values show no spread."""
    measures: dict[tuple[str, str], dict[Where, dict[str, list[Distribution]]]] = {}
    for each in distributions:
        if not any(_MEDIAN < quantile < 1 for quantile, _ in each.quantiles):
            continue
        panels = measures.setdefault((each.measure, each.unit), {})
        panels.setdefault(each.figure.where, {}).setdefault(each.who, []).append(each)
    for (measure, unit), panels in measures.items():
        common = _common(panels)
        yield Spreading(
            measure,
            unit,
            tuple(
                Quantiles(
                    wording.circumstances(_without(where, common)),
                    {who: _medians(lines[who]) for who in sorted(lines, key=rank)},
                )
                for where, lines in panels.items()
            ),
        )


def _medians(rounds: list[Distribution]) -> tuple[tuple[float, float], ...]:
    values: dict[float, list[float]] = {}
    for each in rounds:
        for quantile, value in each.quantiles:
            values.setdefault(quantile, []).append(value)
    return tuple((quantile, statistics.median(values[quantile])) for quantile in sorted(values))


def _without(where: Where, names: Iterable[str]) -> Where:
    left_out = frozenset(names)
    return tuple(each for each in where if each[0] not in left_out)


def _common(wheres: Iterable[Where]) -> list[str]:
    """Return the names of circumstances that are the same in all."""
    all_of_them = [dict(where) for where in wheres]
    return [
        name
        for name, value in (all_of_them[0].items() if all_of_them else ())
        if all(where.get(name) == value for where in all_of_them)
    ]


def common_circumstances(rows: Iterable[Row]) -> Where:
    """Return what all figures of a measure have in common."""
    wheres = [set(row.figure.where) for row in rows]
    return tuple(sorted(set.intersection(*wheres))) if wheres else ()


def best_and_last(panel: Panel) -> tuple[Row, Row] | None:
    """Return the proxies with the best and the last median of a panel, if there are several."""
    proxies = [row for row in panel.rows if row.figure.who not in REFERENCES]
    if len(proxies) < 2:
        return None
    sign = -1 if proxies[0].better == "more" else 1
    ordered = sorted(proxies, key=lambda row: sign * row.spread.median)
    return ordered[0], ordered[-1]


def are_apart(one: Row, other: Row) -> bool:
    """Say whether two medians differ by more than their rounds do; one round cannot tell."""
    lower, upper = sorted((one.spread, other.spread), key=lambda each: each.median)
    return min(lower.count, upper.count) > 1 and lower.high < upper.low


def needs_logarithm(values: Iterable[float]) -> bool:
    """Say whether values lie so far apart that a linear axis would hide the small ones."""
    least, most = math.inf, 0.0
    for value in values:
        least, most = min(least, value), max(most, value)
    return least > 0 and most / least > 20
