"""`kproxy` as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import LONGEST_S, until

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
                env={**environment, "PYTHONPATH": str(ROOT)},
            )

    def said(self) -> str:
        """Return all that it has logged so far."""
        return self._log.read_text()

    def wait_for(self, words: str, *, within_s: float = LONGEST_S) -> float:
        """Wait until these words are in the log; return the seconds that it took."""

        def seen() -> bool:
            assert words in self.said() or self.process.poll() is None, self.said()
            return words in self.said()

        return until(seen, within_s=within_s, what=f"{words!r} in the log:\n{self.said()}")

    def ended(self) -> int:
        """Wait for its end; return the exit code, negative if a signal killed it."""
        return self.process.wait(timeout=LONGEST_S)

    def stop(self) -> int:
        """Ask it to stop and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.ended()
