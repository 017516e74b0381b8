"""Commands that have to succeed."""

import os
import shlex
import subprocess
from collections.abc import Mapping

from tests.support.waiting import SLOWER

_SHOWN = 4000  # characters of either stream, from its end


class CommandFailed(AssertionError):
    """A command that had to succeed did not; the text is what it said."""


def output_of(
    *command: object,
    timeout_s: float,
    stdin: str = "",
    cwd: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its standard output; what it said is in the failure."""
    words = list(map(str, command))
    done = subprocess.run(
        words,
        input=stdin,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s * SLOWER,
    )
    said = f"{done.stdout[-_SHOWN:]}{done.stderr[-_SHOWN:]}"
    if done.returncode:
        raise CommandFailed(f"{shlex.join(words)}: {said}")
    return done.stdout
