"""How many values are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.model import Quantile

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
# With so many expected beyond a quantile the most extreme value is beyond it as often as not, which
# makes it a fair guess.
_FEWEST_BEYOND = math.log(2)


def quantiles(values: Sequence[float]) -> tuple[Quantile, ...]:
    """Return which value these shares of all lie below; each is one that was measured.

    Of a tail only what these values can tell, as p99 of 70 or more and p99.9 of 700: of fewer it
    would be the most extreme of them by another name, and depend on how many they are.
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    return tuple(
        (share, ordered[min(last, int(share * len(ordered)))])
        for share in QUANTILES
        if share in (0.0, 0.5, 1.0) or min(share, 1 - share) * len(ordered) >= _FEWEST_BEYOND
    )
