"""Control groups of version 2."""

from __future__ import annotations

from pathlib import Path

from backends.kernel.mounts import mounts
from kproxy.ports.data_path import BackendError

_TYPE = "cgroup2"
_NOT_AT_THE_ROOT = "cgroup.type"  # every group has it but the one that all are in


def root() -> Path:
    """Return the group that all processes of the machine are in, wherever it is mounted.

    A container may see its own group at the place of that one, which will not do. Raises
    BackendError.
    """
    doing = "looking for the root of cgroup v2"
    places = [mount.place for mount in mounts() if mount.type == _TYPE]
    for place in places:
        if not (place / _NOT_AT_THE_ROOT).exists():
            return place
    detail = f"{places[0]} is a group of its own" if places else "it is not mounted"
    raise BackendError(doing, detail, transient=False)
