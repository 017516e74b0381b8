"""Inside the machine: writes down what pytest collected, and what became of each test as it ends.

A plugin for pytest: `-p tests.support.vm.recording --record FILE`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the file's name."""
    parser.addoption("--record", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(_Recording(config))


class _Recording:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._file = config.getoption("record").open("a")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write({"collected": [item.nodeid for item in session.items]})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._write(hook.pytest_report_to_serializable(config=self._config, report=report))

    def _write(self, entry: object) -> None:
        # At once: whoever reads it waits for it, and the machine may go off at any moment.
        print(json.dumps(entry), file=self._file, flush=True)
