"""Runs of the bench: by its command, or in the test's own process, told to nobody."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.model import Machine, Results, Writer, read
from bench.model import Run as Head
from bench.parameters import Parameters
from bench.part import Part
from bench.runner import Run
from tests.support.waiting import LONGEST_S

_SMALL = ("--sizes", "20x3", "--repeats", "1", "--seconds", "0.05", "--flows", "1000")
_WITHIN_S = 5 * LONGEST_S
_STALLED = ("Connection timed out", "were lost", " timed out after ")


def is_of_a_stall(text: str) -> bool:
    """Say whether a limit is also seen where a processor of the machine stood still."""
    return any(each in text for each in _STALLED)


def run(to: Path, *arguments: str) -> Results:
    """Run the command on a small cluster; return what it has written.

    Whoever could not be measured is among the limits.
    """
    command = [*small_run(to), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=_WITHIN_S)
        except BaseException:
            process.send_signal(signal.SIGINT)  # it takes away what it has made
            process.communicate(timeout=_WITHIN_S)
            raise
    assert process.returncode in (0, 1), said
    return read(to)


def small_run(to: Path) -> list[str]:
    """Return the command that measures a small cluster once."""
    return [sys.executable, "-m", "bench", "run", *_SMALL, "--to", str(to)]


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
