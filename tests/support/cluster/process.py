"""A program that runs in the background and never outlives this process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_LAST_LINES = 15


class Background:
    """A child process with its log in a file.

    It is killed with the thread that started it, also if that is killed itself, so it is to be
    started by the main thread.
    """

    def __init__(self, program: Path, arguments: Sequence[str], *, log: Path) -> None:
        self._command = ["setpriv", "--pdeathsig", "KILL", str(program), *arguments]
        self.name = program.name
        self._log = log
        self._process = self._begin()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def begin_again(self) -> None:
        """Start it once more, after it was stopped; its log goes on."""
        self._process = self._begin()

    def pause(self) -> None:
        """Let it hang: the kernel still takes its connections and their data."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End what `pause` began."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self, *, within_s: float) -> None:
        """Ask it to end and wait; kill it if it takes longer."""
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it and wait."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
