"""`kproxy` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import LONGEST_S, until, until_said

ROOT = Path(__file__).parents[3]


class Proxy:
    """A process that runs the command line, in the namespace of the thread that starts it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self._log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "kproxy", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={"PYTHONPATH": str(ROOT), **environment},
                process_group=0,
            )

    def said(self) -> str:
        """Return all that it has logged so far."""
        return self._log.read_text(errors="replace")  # a line may be half written

    def wait_for(self, words: str, *, within_s: float = LONGEST_S) -> float:
        """Wait until these words are in the log; return the seconds that it took."""
        return until_said(words, said=self.said, runs=self._runs, within_s=within_s)

    def is_held(self) -> bool:
        """Say whether a signal has stopped all of its threads."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        try:
            return all(each.read_text().rpartition(")")[2].split()[0] == "T" for each in threads)
        except (FileNotFoundError, ProcessLookupError):  # one of them has just ended
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from doing anything while the body runs."""
        self.process.send_signal(signal.SIGSTOP)
        until(self.is_held, within_s=LONGEST_S, what="it is stopped")
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let it go on, whoever held it."""
        self.process.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """Wait for its end; return the exit code, negative if a signal killed it."""
        return self.process.wait(timeout=LONGEST_S)

    def survived(self) -> bool:
        """Say whether it has ended, and what it started has not."""
        if self._runs():
            return False
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> int:
        """Ask it to stop and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.ended()

    def _runs(self) -> bool:
        return self.process.poll() is None
