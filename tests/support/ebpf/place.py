"""What a node's eBPF data path needs of the machine: a BPF file system and a cgroup of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S, until

# The shell is in the cgroup before it becomes the command, so nothing of that runs outside.
_INSIDE = 'echo 0 >"$0" && exec "$@"'
_numbers = itertools.count()


class Place:
    """A BPF file system below `folder`, and a cgroup whose processes are those of the node.

    Several fit on one machine. Gone with `close`, for which no process may be left in the cgroup.
    """

    def __init__(self, folder: Path) -> None:
        self.bpffs = folder / "bpf"
        self.bpffs.mkdir()
        output_of("mount", "-t", "bpf", "bpf", self.bpffs, timeout_s=LONGEST_S)
        self.cgroup = cgroup_root() / f"kproxy-{os.getpid()}-{next(_numbers)}"
        self.cgroup.mkdir()

    @property
    def options(self) -> tuple[str, ...]:
        """The options by which kproxy uses these two."""
        return ("--ebpf-bpffs", str(self.bpffs), "--ebpf-cgroup", str(self.cgroup))

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs another one in the cgroup."""
        return ["sh", "-c", _INSIDE, str(self.cgroup / "cgroup.procs"), *command]

    def joined(self) -> AbstractContextManager[None]:
        """Have this process, and those that it starts, in the cgroup while the body runs."""
        return joined(self.cgroup)

    def close(self) -> None:
        """Take both away, and with them every program that is pinned or attached there."""
        output_of("umount", "--lazy", self.bpffs, timeout_s=LONGEST_S)
        self.bpffs.rmdir()
        # A proxy that was killed there may have left a program to end by itself.
        until(self._is_left, within_s=LONGEST_S, what=f"all processes have left {self.cgroup}")
        self.cgroup.rmdir()

    def _is_left(self) -> bool:
        return "populated 0" in (self.cgroup / "cgroup.events").read_text()


def cgroup_root() -> Path:
    """Return where control groups of version 2 are mounted."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2")


@contextlib.contextmanager
def joined(group: Path) -> Iterator[None]:
    """Have this process in a control group: a socket belongs to the group of who made it."""
    before = _own_cgroup() / "cgroup.procs"
    (group / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        before.write_text("0")


def _own_cgroup() -> Path:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    name = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    return cgroup_root() / name.lstrip("/")
