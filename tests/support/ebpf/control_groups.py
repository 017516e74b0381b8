"""Joining a control group: a socket belongs to the group of who made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ebpf.fixtures import cgroup_root


@contextmanager
def joined(group: Path) -> Iterator[None]:
    """Have this process in a group while the body runs: sockets made in it meet its hooks."""
    home = cgroup_root() / _own()
    (group / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text("0")


def _own() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    name = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    return name.lstrip("/")
