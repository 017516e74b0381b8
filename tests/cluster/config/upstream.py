"""The real kube-proxy and ours side by side, as far as a command line goes that writes a file."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kproxy.cli import kube_proxy
from tests.support.waiting import LONGEST_S

_OTHER_NAMES = {"interfaceNamePrefix": "InterfacePrefix", "bridgeInterface": "InterfaceName"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did: exit code, the file that it wrote ("" if none), and what it said."""

    code: int
    written: str
    said: str


def theirs(program: Path, folder: Path, words: list[str]) -> Outcome:
    """Run the real kube-proxy."""
    file = folder / "theirs.yaml"
    file.unlink(missing_ok=True)
    done = run(program, f"--write-config-to={file}", *words)
    # Where a flag cannot be read, the whole help comes before the error.
    said = done.stderr.rpartition("\nError: ")[2]
    return Outcome(done.returncode, file.read_text() if file.exists() else "", said)


def run(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the real kube-proxy and return what it said."""
    return subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=LONGEST_S, check=False
    )


def ours(folder: Path, words: list[str]) -> Outcome:
    """Run ours, in this process."""
    file = folder / "ours.yaml"
    file.unlink(missing_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = kube_proxy.main([f"--write-config-to={file}", *words])
    return Outcome(code, file.read_text() if file.exists() else "", said.getvalue())


def agree_on_what_is_wrong(their: str, our: str) -> bool:
    """Say whether at least one of our lines is about a field that theirs names.

    Upstream ends at the first kind of error, and names no field for a bad duration or quantity. In
    JSON it says nothing at all.
    """
    theirs = _letters(their)
    if not their or "invalid duration" in their or "quantit" in their or "missing unit" in their:
        return True
    return any(_letters(_field_of(line)) in theirs for line in our.splitlines())


def _field_of(line: str) -> str:
    """Return the last part of the name of the field, or the flag, that a line of ours is about."""
    flag = re.search(r"flag --?([a-z-]+)", line)
    if flag is not None:
        return flag[1]
    path = re.search(r": ([a-zA-Z.]+)(?:\[\d+\])?(?:\.\w+)?: ", line)
    assert path is not None, line
    name = path[1].rpartition(".")[2]
    return _OTHER_NAMES.get(name, name)


def _letters(text: str) -> str:
    return re.sub(r"[-.]", "", text).lower()
