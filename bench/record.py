"""The results of earlier programs, which the table in README.md still shows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the ratios of two measurements that were taken in the same rounds."""
    pairs = zip(values, baseline, strict=True)
    return round(statistics.median(value / base for value, base in pairs), 3)
