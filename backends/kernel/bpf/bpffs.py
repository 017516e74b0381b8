"""The file system that keeps BPF objects by name: folders in it, and whether it is one."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from kproxy.ports.data_path import BackendError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICE_FIELD = 2
_NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 2, 4, 8  # MS_* in linux/mount.h

_libc = ctypes.CDLL(None, use_errno=True)


def is_bpffs(path: Path) -> bool:
    """Say whether a folder is in a BPF file system."""
    try:
        device = path.stat().st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[_DEVICE_FIELD] == number and kind.startswith("bpf "):
            return True
    return False


def provide(path: Path) -> bool:
    """Mount one at a folder if it is in none; say whether that was needed. Raises BackendError."""
    if is_bpffs(path):
        return False
    doing = f"mounting a BPF file system at {path}"
    flags = ctypes.c_ulong(_NO_SUID | _NO_DEVICES | _NO_PROGRAMS)
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", flags, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        detail = f"{reason}; mount it as root: {by_hand(path)}"
        raise BackendError(doing, detail, transient=False)
    return True


def by_hand(path: Path) -> str:
    """Return the command that mounts one at a place."""
    mount = f"mount -t bpf bpf {path}"
    return mount if path.is_dir() else f"mkdir -p {path} && {mount}"


def exchange(one: Path, other: Path) -> None:
    """Let two names change places in one step (Linux 5.16 in a BPF file system). Raises OSError."""
    names = (os.fsencode(one), os.fsencode(other))
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def remove(folder: Path) -> int:
    """Remove a folder with all that is in it; return how many pins there were. Raises OSError."""
    removed = 0
    for place, folders, pins in os.walk(folder, topdown=False):
        for pin in pins:
            os.unlink(os.path.join(place, pin))
            removed += 1
        for each in folders:
            os.rmdir(os.path.join(place, each))
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return removed
