"""Where results go: one JSON file for each benchmark, with what is needed to compare it later."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_ROOT = Path(__file__).parent.parent

Row = dict[str, Any]


def record(name: str, *, date: str, parameters: Row, results: Sequence[Row]) -> None:
    """Write bench/results/NAME.json, and print it."""
    write(measured(name, date=date, parameters=parameters, results=results))


def measured(name: str, *, date: str, parameters: Row, results: Sequence[Row]) -> Row:
    """Return results with what was measured where: all that their file holds."""
    return {
        "bench": name,
        "date": date,
        "commit": _commit(),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "iptables": _version_of("iptables"),
        "parameters": parameters,
        "results": list(results),
    }


def write(document: Row) -> None:
    """Write the file of a benchmark, and print it."""
    text = json.dumps(document, indent=2) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{document['bench']}.json").write_text(text)
    print(text, end="")


def ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the median of the ratios of two measurements that were taken in the same rounds."""
    pairs = zip(values, baseline, strict=True)
    return round(statistics.median(value / base for value, base in pairs), 3)


def spread(values: Sequence[float], digits: int = 2) -> Row:
    """Return median, 90th and 99th percentile and largest of several measurements."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "p90": round(ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))], digits),
        "p99": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], digits),
        "max": round(ordered[-1], digits),
        "count": len(ordered),
    }


def _commit() -> str:
    """Return the commit that was measured; `+` says that files differed from it."""
    head = _output("git", "rev-parse", "--short=12", "HEAD") or "none"
    return head + ("+" if _output("git", "status", "--porcelain", "--", ":!bench/results") else "")


def _version_of(tool: str) -> str:
    return _output(tool, "--version")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
