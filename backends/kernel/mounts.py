"""Which file system a path is in. Format: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


class Mount(NamedTuple):
    """A place where a file system is mounted, and its type's name."""

    place: Path
    type: str


def mounts() -> Iterator[Mount]:
    """Yield what is mounted; the later of two at one place hides the other."""
    for line in _MOUNTS.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        yield Mount(Path(_unescaped(before.split()[4])), after.split()[0])


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is in, or would be in if it were made."""
    real = Path(os.path.realpath(path))
    found = [mount for mount in mounts() if real.is_relative_to(mount.place)]
    longest = max(len(mount.place.parts) for mount in found)
    return [mount.type for mount in found if len(mount.place.parts) == longest][-1]


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
