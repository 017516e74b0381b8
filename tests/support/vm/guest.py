"""Runs tests of this tree inside the machine, and tells one by one what became of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support.vm.machine import Machine
from tests.support.vm.record import Record, Reports
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]

# An emulated processor does less than a tenth of what this machine's does.
_SLOWER = 10
_TEST_LONGEST_S = 120 * _SLOWER
# What is slow to import there and nothing needs.
_WITHOUT = ("randomly", "cacheprovider", "hypothesispytest")
_PROCESSES = 2  # as many as the machine has processors
_BOOT_LONGEST_S = 600.0  # 15 s where nothing else runs
_SHOWN = 3000  # characters of the end of what the machine said


class Guest:
    """A machine that runs tests; which ones, pytest is told by node ids.

    They are dealt out like cards to processes that run side by side, each of which runs what it got
    in this order. Files are in `share`: the console, what they printed, the record of each process.
    """

    def __init__(self, selected: Sequence[str], share: Path, config: pytest.Config) -> None:
        hands = {share / f"record{n}": selected[n::_PROCESSES] for n in range(_PROCESSES)}
        self._machine = Machine(
            _side_by_side([_pytest(hand, record.name) for record, hand in hands.items() if hand]),
            share=share,
            cwd=ROOT,
            environment={"KPROXY_TESTS_SLOWER": str(_SLOWER)},
        )
        self._records = {
            each: record
            for file, hand in hands.items()
            for record in [Record(file, config)]
            for each in hand
        }

    def reports(self, selected: str, within_s: float) -> Reports:
        """Return what was reported of the tests that a node id selects, once all have ended.

        Fails if the machine goes off, or the time is up, before they have: what is asked for after
        that fails at once.
        """
        record = self._records[selected]
        try:
            until(self._has_booted, within_s=_BOOT_LONGEST_S, what="the machine boots")
            over = partial(self._is_over, record, selected)
            until(over, within_s=within_s, what="the tests in the machine end")
            assert record.has_ended(selected), "the machine went off before this had ended"
        except AssertionError as error:
            self.off()
            raise AssertionError(f"{selected}: {error}\n{self._said()}") from None
        found = record.reports(selected)
        assert found, f"{selected} selects no test"
        return found

    def console(self) -> Path:
        """Return the file of what the machine's kernel said."""
        return self._machine.console

    def off(self) -> None:
        """Turn the machine off at once."""
        self._machine.off()

    def _has_booted(self) -> bool:
        return self._machine.has_booted() or not self._machine.is_running()

    def _is_over(self, record: Record, selected: str) -> bool:
        is_off = not self._machine.is_running()
        record.follow()
        return is_off or record.has_ended(selected)

    def _said(self) -> str:
        return "\n".join(
            f"--- the end of {file}:\n{file.read_text(errors='replace')[-_SHOWN:]}"
            for file in (self._machine.output, self._machine.console)
        )


def _side_by_side(commands: Sequence[Sequence[str]]) -> list[str]:
    return ["sh", "-c", "".join(f"{shlex.join(each)} &\n" for each in commands) + "wait"]


def _pytest(selected: Sequence[str], record: str) -> list[str]:
    without = [word for each in _WITHOUT for word in ("-p", f"no:{each}")]
    recording = ["-p", "tests.support.vm.recording", "--record", str(Machine.SHARE / record)]
    limit = f"--timeout={_TEST_LONGEST_S}"
    return [sys.executable, "-m", "pytest", "-v", *without, *recording, limit, *selected]
