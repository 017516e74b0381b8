"""The manifest files below a folder: which there are, and what they hold. Blocking I/O."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".yaml", ".yml", ".json")
MAX_SIZE_BYTES = 64 << 20
_RACY_NS = 100_000_000  # file times advance in steps of up to 10 ms, and clocks differ a little

_NOT_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Stamp(NamedTuple):
    """Differs when a file was replaced or written, except within one tick of its clock."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class Identity(NamedTuple):
    """Tells one directory from another, whatever it is called."""

    device: int
    inode: int


class CannotRead(Exception):
    """A file or folder that is there but cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class FileText:
    """What a file held. `racy`: it may have changed since without a new stamp."""

    data: bytes
    digest: bytes
    stamp: Stamp
    racy: bool


@dataclass(slots=True)
class FolderContents:
    """The manifest files below a folder, by path relative to it.

    - `files`: the stamp, or why the file cannot be read.
    - `directories`: those that were listed.
    - `linked`: other directories, which hold the targets of linked files.
    - `hidden`: directories that cannot be read, and why; nothing is known of what is below.
    - `lost`: why the folder itself cannot be read, "" if it can.
    """

    root: Identity | None = None
    files: dict[str, Stamp | CannotRead] = field(default_factory=dict)
    directories: dict[Identity, str] = field(default_factory=dict)
    linked: dict[Identity, str] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    lost: str = ""


def is_manifest(name: str) -> bool:
    """Say whether a file name is one that is read.

    Names that begin with a dot are not: ConfigMap volumes hold each file twice, once below
    `..data`, and editors keep hidden copies.
    """
    return name.endswith(SUFFIXES) and not name.startswith(".")


def list_folder(root: Path) -> FolderContents:
    """Return the manifest files below `root`. Never raises OSError.

    Links are followed, each directory is visited once: loops end, and a second way into a
    directory does not hold its objects twice.
    """
    listing = FolderContents()
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        try:
            below = _list_directory(root, relative, listing)
        except OSError as error:
            if not relative:
                listing.lost = error.strerror or str(error)
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                listing.hidden[relative] = error.strerror or str(error)
            continue
        waiting += reversed(below)
    return listing


def read_text(path: Path) -> FileText:
    """Return what a file holds. Raises CannotRead, and FileNotFoundError if it is gone."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(handle)
            _check_readable(status)
            data = b"".join(_chunks(handle))
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CannotRead(error.strerror or str(error)) from error
    # Times newer than this read may not change again for the next write.
    racy = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _RACY_NS
    return FileText(data, hashlib.blake2b(data, digest_size=16).digest(), _stamp(status), racy)


def _list_directory(root: Path, relative: str, listing: FolderContents) -> list[str]:
    """Add one directory to the listing; return the directories below it."""
    path = root / relative
    status = path.stat()
    identity = _identity(status)
    if identity in listing.directories:
        return []
    with os.scandir(path) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    if not relative:
        listing.root = identity
    listing.directories[identity] = str(path)
    below = []
    for entry in found:
        name = f"{relative}/{entry.name}" if relative else entry.name
        try:
            if entry.is_dir():
                below.append(name)
            elif is_manifest(entry.name):
                _list_file(name, entry, listing)
        except OSError as error:
            why = error.strerror or str(error)
            if is_manifest(entry.name):
                listing.files[name] = CannotRead(why)
            else:  # a link, to a folder perhaps
                listing.hidden[name] = why
    return below


def _list_file(name: str, entry: os.DirEntry[str], listing: FolderContents) -> None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            listing.files[name] = CannotRead("a link to nothing")
        return
    try:
        _check_readable(status)
        listing.files[name] = _stamp(status)
    except CannotRead as error:
        listing.files[name] = error
    if entry.is_symlink():
        target = os.path.dirname(os.path.realpath(entry.path))
        held_in = os.stat(target)
        listing.linked[_identity(held_in)] = target


def _check_readable(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = _NOT_FILES.get(stat.S_IFMT(status.st_mode), "a directory")
        raise CannotRead(f"is {what}, not a file")
    if status.st_size > MAX_SIZE_BYTES:
        raise CannotRead(f"is larger than {MAX_SIZE_BYTES >> 20} MiB")


def _chunks(handle: int) -> Iterator[bytes]:
    size_bytes = 0
    while chunk := os.read(handle, 1 << 20):
        size_bytes += len(chunk)
        if size_bytes > MAX_SIZE_BYTES:
            raise CannotRead(f"is larger than {MAX_SIZE_BYTES >> 20} MiB")
        yield chunk


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino)
