"""A run of the bench in the test's own process, told to nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.model import Machine, Results, Writer, read
from bench.model import Run as Head
from bench.parameters import Parameters
from bench.part import Part
from bench.runner import Run


class Silent:
    """Nobody watches how far it is."""

    title = ""

    def begin(self, visits: int, rounds: int) -> None:
        """Say nothing."""

    def made(self, took_s: float, *, left: int) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


def measured(
    file: Path,
    parts: Sequence[Part],
    parameters: Parameters,
    *,
    raises: type[BaseException] | None = None,
) -> tuple[Results, Run]:
    """Measure parts into a file; return what it holds, and the run. `raises` is how it ends."""
    head = Head(
        started=datetime.now(UTC),
        commit="none",
        dirty=False,
        preset="quick",
        parameters={},
        machine=Machine(cpu="none", cores=1, memory_gb=1.0),
        kernel="none",
        versions={},
    )
    with Writer(file, head) as writer:
        made = Run(parts, parameters, writer=writer, progress=Silent())
        with pytest.raises(raises) if raises else contextlib.nullcontext():
            made.measure()
    return read(file), made
