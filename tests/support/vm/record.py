"""What became of tests in the machine, read from the file that `recording` writes there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

Reports = dict[str, list[pytest.TestReport]]


class Record:
    """Follows the file, which may not be there yet, and whose last line may be half written."""

    def __init__(self, file: Path, config: pytest.Config) -> None:
        self._file = file
        self._config = config
        self._read_to = 0
        self._collected: tuple[str, ...] | None = None
        self._running: set[str] = set()
        self._reports: Reports = {}

    def follow(self) -> None:
        """Take what was written since."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if line.endswith(b"\n"):
                    self._read_to += len(line)
                    self._take(json.loads(line))

    def has_ended(self, selected: str) -> bool:
        """Say whether all tests that a node id selects are known, and have ended."""
        return self._collected is not None and self._running.isdisjoint(self._of(selected))

    def reports(self, selected: str) -> Reports:
        """Return what was reported of each test that a node id selects."""
        return {each: self._reports.get(each, []) for each in self._of(selected)}

    def _of(self, selected: str) -> list[str]:
        inside = (f"{selected}::", f"{selected}[")
        return [
            each for each in self._collected or () if each == selected or each.startswith(inside)
        ]

    def _take(self, entry: dict[str, object]) -> None:
        collected = entry.get("collected")
        if isinstance(collected, list):
            self._collected = tuple(collected)
            self._running = set(collected)
            return
        hook = self._config.hook
        report = hook.pytest_report_from_serializable(config=self._config, data=entry)
        self._reports.setdefault(report.nodeid, []).append(report)
        if report.when == "teardown":
            self._running.discard(report.nodeid)
