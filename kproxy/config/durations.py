"""Time spans, and Go's syntax for them, in which Kubernetes writes them.

Both directions agree with Go to the nanosecond.
"""

from __future__ import annotations

import re
from typing import Self

_SECOND_NS = 10**9
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, micro sign
    "μs": 10**3,  # U+03BC, Greek mu
    "ms": 10**6,
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "h": 3600 * _SECOND_NS,
}
_PART = r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)"
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_DURATION = re.compile(rf"([-+]?)(0|(?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_LIMIT_NS = 2**63
_LONGEST = 100
_FRACTION_DIGITS = 18  # more do not fit into the 63 bits that Go counts them in


class Span(float):
    """A time span: as a number its seconds, for clocks and timers, and its exact `nanoseconds`.

    A float cannot tell one nanosecond from the next beyond 52 days.
    """

    nanoseconds: int

    def __new__(cls, nanoseconds: int) -> Self:
        """Return a span of so many nanoseconds."""
        span = super().__new__(cls, nanoseconds / _SECOND_NS)
        span.nanoseconds = nanoseconds
        return span

    def __getnewargs__(self) -> tuple[int]:
        """Return what a copy is made of; a float's own would be taken for nanoseconds."""
        return (self.nanoseconds,)


def whole_seconds(count: int) -> Span:
    """Return a span of so many seconds."""
    return Span(count * _SECOND_NS)


def parse_duration(text: str) -> Span:
    """Return the span that `text` stands for, for example 5400 seconds for "1h30m".

    The syntax, the range (±292 years) and what becomes of fractions of a nanosecond are those of
    Go's time.ParseDuration. Raises ValueError.
    """
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError("not a duration such as 30s, 15m or 1h30m")
    sign, parts = match.group(1, 2)
    total_ns = sum(_part_ns(*part) for part in re.findall(_PART, parts))
    if total_ns >= _LIMIT_NS:
        raise ValueError("longer than 292 years")
    return Span(-total_ns if sign == "-" else total_ns)


def format_duration(span: Span) -> str:
    """Return what Go prints for a span: `1h0m0s`, `1.5s`, `300ms`, `0s`."""
    total_ns = span.nanoseconds
    if total_ns == 0:
        return "0s"
    sign = "-" if total_ns < 0 else ""
    rest_ns = abs(total_ns)
    for unit in ("ns", "µs", "ms"):
        if rest_ns < 1000 * _UNITS_NS[unit]:
            return f"{sign}{_decimal(rest_ns, _UNITS_NS[unit])}{unit}"
    minutes, rest_ns = divmod(rest_ns, _UNITS_NS["m"])
    text = f"{_decimal(rest_ns, _SECOND_NS)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _part_ns(whole: str, fraction: str, unit: str) -> int:
    unit_ns = _UNITS_NS[unit]
    digits = fraction[:_FRACTION_DIGITS]
    # Go multiplies floats here and cuts off what is less than a nanosecond.
    extra_ns = int(float(int(digits)) * (float(unit_ns) / 10.0 ** len(digits))) if digits else 0
    return int(whole or "0") * unit_ns + extra_ns


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
