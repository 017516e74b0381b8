"""Go's duration syntax, in which Kubernetes writes time spans."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS_S = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),  # U+00B5, micro sign
    "μs": Fraction(1, 10**6),  # U+03BC, Greek mu
    "ms": Fraction(1, 10**3),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"([-+]?)(0|(?:{_PART})+)", re.ASCII)
_LIMIT_S = Fraction(2**63, 10**9)
_LONGEST = 100


def parse_duration(text: str) -> float:
    """Return the seconds that `text` stands for, for example 5400.0 for "1h30m".

    The syntax and the range (±292 years) are those of Go's time.ParseDuration. Raises ValueError.
    """
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError("not a duration such as 30s, 15m or 1h30m")
    sign, parts = match.group(1, 2)
    total = sum(
        (
            Fraction(number.rstrip(".")) * _UNITS_S[unit]
            for number, unit in re.findall(_PART, parts)
        ),
        Fraction(0),
    )
    if total >= _LIMIT_S:
        raise ValueError("longer than 292 years")
    return float(-total if sign == "-" else total)
