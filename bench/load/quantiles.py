"""How many values are spread."""

from __future__ import annotations

from collections.abc import Sequence

from bench.model import Quantile

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


def quantiles(values: Sequence[float]) -> tuple[Quantile, ...]:
    """Return which value these shares of all lie below; each is one that was measured."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return tuple((share, ordered[min(last, int(share * len(ordered)))]) for share in QUANTILES)
