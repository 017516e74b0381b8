"""How figures, their values and what they were measured on are put into words."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench.model import Figure, Machine, Value

_DIGITS = 3


def number(value: float) -> str:
    """Return a number with three digits that count, thousands apart: 52,700 or 0.0312."""
    if not math.isfinite(value):
        return f"{value:g}".replace("inf", "∞")
    if value == int(value) and abs(value) < 10**_DIGITS:
        return str(int(value))
    places = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, min(places, 6))}f}"


def relative(change: float) -> str:
    """Return a relative change in per cent: "-10.2 %"."""
    if math.isinf(change):
        return "from 0"
    return f"{100 * change:+.1f} %" if abs(change) < 1 else f"{100 * change:+,.0f} %"


def circumstances(where: Iterable[tuple[str, Value]], *, leaving_out: Iterable[str] = ()) -> str:
    """Return under which circumstances a figure was measured: "path clusterIP, services 1,000"."""
    left_out = frozenset(leaving_out)
    return " · ".join(_circumstance(*each) for each in where if each[0] not in left_out)


def _circumstance(name: str, value: Value) -> str:
    """Return one; texts speak for themselves, numbers need their name."""
    if isinstance(value, str):
        return value
    return f"{value:,.10g} {name.replace('_', ' ')}"


def titled(measure: str, unit: str) -> str:
    """Return a measure with its unit; "1" is that of counts, which speak for themselves."""
    return measure if unit == "1" else f"{measure}, {unit}"


def measure(figure: Figure) -> str:
    """Return what a figure is a measure of, with its part and unit."""
    return f"{figure.part}: {titled(figure.measure, figure.unit)}"


def machine(given: Machine) -> str:
    """Return a machine in a few words."""
    return f"{given.cpu}, {given.cores} cores, {given.memory_gb:g} GB"
