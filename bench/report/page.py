"""The page of a run: HTML that needs no network, no script and no file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import wording
from bench.model import Limit, Results
from bench.report import plots
from bench.report.sections import (
    Measured,
    Panel,
    Row,
    Section,
    Spreading,
    are_apart,
    best_and_last,
    common_circumstances,
    needs_logarithm,
    sections,
)
from kproxy.text.escaping import printable

_TEMPLATE = "page.html"
_P99 = ", p99"  # of a distribution one quantile is enough at a glance: this one, if it is told
_BESIDE_P99 = re.compile(r", p(50|99\.9)$")
_NO_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class _Plot:
    svg: Markup
    about: str


@dataclass(frozen=True, slots=True)
class _Shown:
    """A measure as the page shows it."""

    anchor: str
    title: str
    sentences: tuple[str, ...]
    plots: tuple[_Plot, ...]
    rows: tuple[Row, ...]
    common: tuple[str, ...]  # names of circumstances that all rows share


@dataclass(frozen=True, slots=True)
class _Spread:
    title: str
    plot: _Plot


@dataclass(frozen=True, slots=True)
class _Part:
    anchor: str
    part: str
    limits: tuple[Limit, ...]
    measures: tuple[_Shown, ...]
    spreadings: tuple[_Spread, ...]


@dataclass(frozen=True, slots=True)
class _Glance:
    anchor: str
    title: str
    where: str
    best: Row
    last: Row


def page(results: Results) -> str:
    """Return a run as HTML."""
    found = sections(results)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
    )
    environment.filters |= {"number": wording.number, "circumstances": wording.circumstances}
    return environment.get_template(_TEMPLATE).render(
        title="Load test of kproxy",
        run=results.run,
        results=results,
        facts=list(_facts(results)),
        overview=[glance for section in found for glance in _glances(section)],
        parts=[_part(section) for section in found],
        confidence=_confidence(found),
    )


def _harmless(value: object) -> object:
    """Escape what is no text for people in names that come from files."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    run = results.run
    yield "commit", f"{run.commit}, with changes" if run.dirty else run.commit
    yield "machine", wording.machine(run.machine)
    yield "kernel", run.kernel
    yield "versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield "preset", run.preset
    yield (
        "parameters",
        ", ".join(f"{name} {_plain(given)}" for name, given in run.parameters.items()),
    )
    if results.end is not None:
        took = results.end.finished - run.started
        yield "took", f"{took.total_seconds() / 60:.1f} minutes"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _glances(section: Section) -> Iterator[_Glance]:
    names = {measured.measure for measured in section.measures}
    for measured in section.measures:
        if _BESIDE_P99.sub(_P99, measured.measure) in names - {measured.measure}:
            continue
        for panel in measured.panels:
            ends = best_and_last(panel)
            if ends and are_apart(*ends):
                where = wording.circumstances(ends[0].figure.where)
                anchor = _anchor(section.part, measured.title)
                yield _Glance(anchor, measured.title, where, *ends)


def _part(section: Section) -> _Part:
    return _Part(
        _anchor(section.part),
        section.part,
        section.limits,
        tuple(_shown(measured) for measured in section.measures),
        tuple(_spread(section.part, each) for each in section.spreadings),
    )


def _shown(measured: Measured) -> _Shown:
    return _Shown(
        _anchor(measured.part, measured.title),
        measured.title,
        _sentences(measured),
        tuple(_plots(measured)),
        measured.rows,
        tuple(name for name, _ in common_circumstances(measured.rows)),
    )


def _plots(measured: Measured) -> Iterator[_Plot]:
    name = _anchor(measured.part, measured.title)
    label = measured.title
    if _is_all_zero(measured):
        return
    logarithmic = needs_logarithm(
        value for panel in measured.panels for row in panel.rows for value in row.samples
    )
    yield _Plot(
        Markup(plots.dots(f"{name}-dots", measured.panels, label)),
        f"{_capital(measured.measure)} by who was measured: medians with their intervals, and each "
        f"round as a stroke. {_better(measured)}"
        + (" The axis is logarithmic, as values lie far apart." if logarithmic else ""),
    )
    along = dict.fromkeys(curve.along for curve in measured.curves)
    for number in along:
        curves = [curve for curve in measured.curves if curve.along == number]
        yield _Plot(
            Markup(plots.curves(f"{name}-{_anchor(number)}", curves, label)),
            f"What it costs to grow: {measured.measure} against the number of {number}, medians "
            f"with their intervals. A flat line is what nobody feels. {_better(measured)} Sizes "
            "were measured one after the other, not in the same rounds: read how somebody grows "
            "beside how a node without a proxy does, or the others.",
        )


def _spread(part: str, each: Spreading) -> _Spread:
    label = wording.titled(each.measure, each.unit)
    return _Spread(
        label,
        _Plot(
            Markup(plots.quantiles(f"{_anchor(part, label)}-quantiles", each.panels, label)),
            f"How {each.measure} is spread: the value that a part of all stays below, medians of "
            "rounds. Towards the right each step is a rarer case, ten times as rare at each nine. "
            "Lower is better.",
        ),
    )


def _sentences(measured: Measured) -> tuple[str, ...]:
    """Return what the figures of a measure say: their circumstances, then each panel."""
    common = common_circumstances(measured.rows)
    start = (f"Measured with {wording.circumstances(common)}.",) if common else ()
    if _is_all_zero(measured):
        return (*start, "It was 0 in every round, of everyone.")
    return (*start, *filter(None, map(_panel_sentence, measured.panels)))


def _panel_sentence(panel: Panel) -> str:
    ends = best_and_last(panel)
    if ends is None:
        return ""
    best, last = ends
    if best.spread.median == last.spread.median:
        return f"{_place(panel)}the median of all proxies is {wording.number(best.spread.median)}."
    if are_apart(best, last):
        return f"{_place(panel)}{_valued(best)} is best, {_valued(last)} last."
    why = "intervals overlap" if best.spread.count > 1 else "there was one round"
    return f"{_place(panel)}from {_valued(best)} to {_valued(last)}; no rank, as {why}."


def _place(panel: Panel) -> str:
    return f"{panel.title}: " if panel.title else ""


def _valued(row: Row) -> str:
    against = f", {row.ratio:.2f} of {row.against}" if row.ratio is not None else ""
    return f"{row.figure.who} ({wording.number(row.spread.median)}{against})"


def _is_all_zero(measured: Measured) -> bool:
    return not any(value for row in measured.rows for value in row.samples)


def _better(measured: Measured) -> str:
    return "More is better." if measured.better == "more" else "Less is better."


def _confidence(found: Iterable[Section]) -> str:
    """Return how many rounds there were, and what few of them can tell."""
    rows = [row for section in found for measured in section.measures for row in measured.rows]
    if not rows:
        return "Nothing was measured."
    least = min(rows, key=lambda row: row.spread.count)
    most = max(rows, key=lambda row: row.spread.count)
    rounds = str(most.spread.count)
    if least.spread.count != most.spread.count:
        rounds = f"{least.spread.count} to {most.spread.count}"
    return (
        f"There were {rounds} rounds of each figure; the interval of the fewest has a confidence "
        f"of {100 * least.spread.confidence:.0f} %."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _anchor(*names: str) -> str:
    return _NO_WORD.sub("-", "-".join(names).lower()).strip("-") or "x"
