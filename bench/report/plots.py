"""Figures as SVG, drawn by matplotlib, in colours that the page chooses.

The page is read in light, in dark and on paper, so no colour is fixed here: each is drawn as a
placeholder that becomes a CSS variable. Hues are those of Okabe and Ito, which colour-blind people
tell apart; each data path has a marker of its own as well, and who is not kproxy has it hollow.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import RcKeyType

from bench import wording
from bench.comparison import REFERENCES
from bench.report.sections import Curve, Panel, Quantiles, needs_logarithm
from kproxy.text.escaping import printable

# Placeholders that nothing else is drawn in, and the CSS variables that they become.
_INK, _FAINT = "#010203", "#010204"
_HUES = {
    "iptables-legacy": "#010205",
    "iptables-nft": "#010206",
    "nftables": "#010207",
    "ipvs": "#010208",
    "ebpf": "#010209",
}
_OTHER = "#01020a"
VARIABLES = {
    _INK: "--ink",
    _FAINT: "--faint",
    **{colour: f"--{name}" for name, colour in _HUES.items()},
    _OTHER: "--other",
}
_MARKERS = {"iptables-legacy": "o", "iptables-nft": "s", "nftables": "^", "ipvs": "v", "ebpf": "D"}
_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",  # text stays text: it is searched, read aloud and recoloured
    "text.parse_math": False,  # names in data are not formulas
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}
_WIDTH_IN = 9.2
_CURVE_IN, _LEGEND_IN = 3.0, 0.6
_WIDE = 200  # from the least to the most: ticks at powers of ten are enough
_COLUMNS = 2
_TITLE_WIDTH = 96  # characters of all titles beside each other
_LABEL_WIDTH = 34  # characters of a name along an axis that stands
_LONGEST = 34  # characters of a name
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True, slots=True)
class Style:
    """How somebody is drawn, in all plots alike."""

    colour: str
    marker: str
    line: str
    filled: bool

    @property
    def face(self) -> str:
        return self.colour if self.filled else "none"


def style(who: str) -> Style:
    """Return how to draw somebody: hue and marker by the data path, hollow if not kproxy."""
    if who in REFERENCES:
        first = who == REFERENCES[0]
        return Style(_OTHER, "P" if first else "X", "--" if first else ":", filled=True)
    for path, colour in _HUES.items():
        if who.endswith(path):
            ours = who.startswith("kproxy")
            return Style(colour, _MARKERS[path], "-" if ours else "--", filled=ours)
    return Style(_OTHER, "*", "-.", filled=False)


def _drawing(name: str) -> AbstractContextManager[None]:
    """Draw in our style; the same figures give the same text, byte for byte."""
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": name})


def dots(name: str, panels: Sequence[Panel], label: str) -> str:
    """Draw medians with their intervals over all samples, a row for each of the measured."""
    with _drawing(name):
        tallest = max(len(panel.rows) for panel in panels)
        values = [value for panel in panels for row in panel.rows for value in row.samples]
        canvas, all_axes = _grid(len(panels), each_in=0.26 * tallest + 0.95)
        beside = _beside(len(panels))
        for number, (axes, panel) in enumerate(zip(all_axes, panels, strict=True)):
            _dots(axes, panel, len(panels))
            _scaled(axes, values)
            if number >= len(panels) - beside:
                axes.set_xlabel(printable(label))
            if number % beside and _names(panel) == _names(panels[number - 1]):
                axes.set_yticklabels([])
        return _svg(canvas, name)


def _names(panel: Panel) -> list[str]:
    return [row.figure.who for row in panel.rows]


def _dots(axes: Axes, panel: Panel, panels: int) -> None:
    rows = panel.rows[::-1]
    for place, row in enumerate(rows):
        look, found = style(row.figure.who), row.spread
        axes.plot(row.samples, [place] * len(row.samples), "|", color=look.colour, alpha=0.45, ms=6)
        axes.plot([found.low, found.high], [place, place], "-", color=look.colour, lw=1.6)
        axes.plot(
            [found.median],
            [place],
            look.marker,
            color=look.colour,
            mfc=look.face,
            ms=6,
            mew=1.4,
            clip_on=False,
        )
        axes.annotate(
            wording.number(found.median),
            (found.median, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_yticks(range(len(rows)), [_shortened(row.figure.who) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.grid(visible=False, axis="y")
    _entitle(axes, panel.title, panels)


def _scaled(axes: Axes, values: Sequence[float]) -> None:
    """Give a panel the axis that all panels of the measure have."""
    if needs_logarithm(values):
        _logarithmic(axes, "x", values)
        return
    axes.set_xlim(0, (max(values, default=0) or 1) * 1.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))


def curves(name: str, panels: Sequence[Curve], label: str) -> str:
    """Draw medians against a number, a line for each of the measured."""
    with _drawing(name):
        canvas, all_axes = _grid(len(panels), each_in=_CURVE_IN, legend_in=_LEGEND_IN)
        for axes, panel in zip(all_axes, panels, strict=True):
            for who, line in panel.lines.items():
                look = style(who)
                at = [each for each, _ in line]
                axes.fill_between(
                    at,
                    [row.spread.low for _, row in line],
                    [row.spread.high for _, row in line],
                    color=look.colour,
                    alpha=0.15,
                    lw=0,
                )
                _line(axes, at, [row.spread.median for _, row in line], who)
            points = [at for line in panel.lines.values() for at, _ in line]
            values = [row.spread.median for line in panel.lines.values() for _, row in line]
            _logarithmic(axes, "x", points)
            axes.xaxis.set_major_locator(FixedLocator(sorted(set(points))))
            axes.xaxis.set_minor_locator(FixedLocator([]))
            if needs_logarithm(values):
                _logarithmic(axes, "y", values)
            else:
                axes.set_ylim(0, (max(values) or 1) * 1.1)
                axes.yaxis.set_major_formatter(FuncFormatter(_tick))
            _entitle(axes, panel.title, len(panels))
            axes.set_xlabel(f"{printable(panel.along)} (logarithmic)")
        all_axes[0].set_ylabel(textwrap.fill(printable(label), _LABEL_WIDTH))
        _legend(canvas, (who for panel in panels for who in panel.lines))
        return _svg(canvas, name)


def quantiles(name: str, panels: Sequence[Quantiles], label: str) -> str:
    """Draw values against the part of all that is below, each nine of it as wide as the last."""
    with _drawing(name):
        canvas, all_axes = _grid(len(panels), each_in=_CURVE_IN, legend_in=_LEGEND_IN)
        for axes, panel in zip(all_axes, panels, strict=True):
            for who, line in panel.lines.items():
                points = [(1 / (1 - quantile), value) for quantile, value in line if quantile < 1]
                _line(axes, [at for at, _ in points], [value for _, value in points], who)
            values = [value for line in panel.lines.values() for _, value in line]
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator([1, 2, 10, 100, 1_000, 10_000]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 - 100 / at:g}"))
            axes.xaxis.set_minor_locator(FixedLocator([]))
            if needs_logarithm(values):
                _logarithmic(axes, "y", values)
            _entitle(axes, panel.title, len(panels))
            axes.set_xlabel("quantile, %")
        all_axes[0].set_ylabel(textwrap.fill(printable(label), _LABEL_WIDTH))
        _legend(canvas, (who for panel in panels for who in panel.lines))
        return _svg(canvas, name)


def _beside(panels: int) -> int:
    """Return how many of them stand beside each other."""
    return min(_COLUMNS, panels)


def _grid(panels: int, *, each_in: float, legend_in: float = 0) -> tuple[Canvas, list[Axes]]:
    """Return axes for panels that are so tall, above a legend."""
    columns = _beside(panels)
    lines = -(-panels // columns)
    canvas = Canvas(figsize=(_WIDTH_IN, lines * each_in + legend_in), layout="constrained")
    return canvas, [canvas.add_subplot(lines, columns, each + 1) for each in range(panels)]


def _entitle(axes: Axes, title: str, panels: int) -> None:
    """Give one of several panels a title that does not run into its neighbour's."""
    wide = _TITLE_WIDTH // _beside(panels)
    axes.set_title(textwrap.fill(_shortened(title, 2 * wide), wide))


def _line(axes: Axes, at: Sequence[float], values: Sequence[float], who: str) -> None:
    look = style(who)
    axes.plot(
        at, values, look.line, marker=look.marker, color=look.colour, mfc=look.face, ms=5, lw=1.4
    )


def _legend(canvas: Canvas, names: Iterable[str]) -> None:
    looks = {who: style(who) for who in names}
    canvas.legend(
        handles=[
            Line2D(
                [],
                [],
                color=look.colour,
                ls=look.line,
                marker=look.marker,
                mfc=look.face,
                ms=5,
                label=_shortened(who),
            )
            for who, look in looks.items()
        ],
        loc="outside lower center",
        ncols=3,
    )


def _logarithmic(axes: Axes, which: str, values: Sequence[float]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(min(values) / 1.4, max(values) * 1.4)
    wide = max(values) / min(values) > _WIDE
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: int | None) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * factor or (abs(value) >= factor and value % (factor / 10) == 0):
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def _shortened(text: str, longest: int = _LONGEST) -> str:
    shown = printable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _svg(canvas: Canvas, name: str) -> str:
    """Return what was drawn as an element: with the page's colours, and ids of its own."""
    FigureCanvasSVG(canvas)
    written = io.StringIO()
    canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    return _IDS.sub(rf"\g<1>{name}-", text)
