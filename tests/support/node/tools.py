"""Stands before the iptables programs that write: counts their calls and gets in their way."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

_FAMILIES = ("iptables", "ip6tables")
_VARIANTS = ("nft", "legacy")

# Shell lines; $real is the program, its input is on standard input and $PPID is the proxy.
KILL_BEFORE = "kill -9 $PPID; exit 1"
KILL_DURING = 'kill -9 $PPID; head -c 300 | $real "$@"; exit'
KILL_AFTER = '$real "$@"; kill -9 $PPID; exit'
HANG = "read answer <{gate}"  # until something is written to this pipe
IMPATIENT = "exec $real --noflush -w 1"  # seconds until somebody else has to let go of the lock
# At the first refusal the proxy is stopped where it stands.
HOLD_IF_REFUSED = """$real "$@" && exit
code=$?
mkdir ${0%/*}/held 2>/dev/null && kill -STOP $PPID
exit $code"""
REFUSE = 'echo "the test refuses" >&2; exit 1'

_SCRIPT = """#!/bin/sh
number=1
# Both families call at the same time; a folder can be made once.
until mkdir {folder}/call.$number 2>/dev/null; do number=$((number + 1)); done
echo {name} >{folder}/call.$number/name
real={real}
for mischief in {folder}/{name}.always {folder}/at.$number; do
    [ -e $mischief ] && . $mischief
done
exec $real "$@"
"""


class Tools:
    """Scripts in a folder that is to come first in the proxy's PATH."""

    def __init__(self, folder: Path, variant: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._variant = variant
        for stem, each in itertools.product(_FAMILIES, _VARIANTS):
            name = f"{stem}-{each}-restore"
            real = shutil.which(name)
            assert real is not None, f"{name} is not installed"
            script = folder / name
            script.write_text(_SCRIPT.format(name=name, folder=folder, real=real))
            script.chmod(0o755)
        self.forget()

    def calls(self) -> list[str]:
        """Return which program was called, for each call since `forget`."""
        names = [call / "name" for call in sorted(self.folder.glob("call.*"), key=_number)]
        return [name.read_text().strip() for name in names if name.exists()]

    def forget(self) -> None:
        """Count from zero again, and do no mischief at any of the calls to come."""
        for call in self.folder.glob("call.*"):
            shutil.rmtree(call)
        for mischief in self.folder.glob("at.*"):
            mischief.unlink()

    def at(self, call: int, mischief: str) -> None:
        """Do something at one call, counted from 1."""
        (self.folder / f"at.{call}").write_text(mischief)

    def always(self, stem: str, mischief: str) -> None:
        """Do something at every call of `iptables` or `ip6tables`, until `leave_alone`."""
        (self.folder / f"{self._program(stem)}.always").write_text(mischief)

    def leave_alone(self, stem: str) -> None:
        """End what `always` began."""
        (self.folder / f"{self._program(stem)}.always").unlink(missing_ok=True)

    def _program(self, stem: str) -> str:
        return f"{stem}-{self._variant}-restore"


def _number(call: Path) -> int:
    return int(call.suffix[1:])
