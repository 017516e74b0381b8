"""Control groups of version 2."""

from __future__ import annotations

from pathlib import Path

from backends.kernel.mounts import file_system, mounts
from kproxy.ports.data_path import BackendError

_TYPE = "cgroup2"
_DOING = "looking for the control group of the socket hooks"
_NOT_AT_THE_ROOT = "cgroup.type"  # every group has it but the one that all are in


def root() -> Path:
    """Return the group that all processes of the machine are in, wherever it is mounted.

    A container may see its own group at the place of that one, which will not do. Raises
    BackendError.
    """
    places = [mount.place for mount in mounts() if mount.type == _TYPE]
    for place in places:
        if not (place / _NOT_AT_THE_ROOT).exists():
            return place
    detail = "version 2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified"
    if places:
        detail = f"{places[0]} is a group of its own: mount the tree of the node there"
    raise BackendError(_DOING, f"{detail}, or name a group by --ebpf-cgroup", transient=False)


def at(path: Path) -> Path:
    """Return the group at a path. Raises BackendError where there is none."""
    if path.is_dir() and file_system(path) == _TYPE:
        return path
    detail = f"{path} is no group of version 2: name another one by --ebpf-cgroup"
    raise BackendError(_DOING, f"{detail}, or none for the root", transient=False)
