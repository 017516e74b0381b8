"""Tells when a folder may have changed: inotify, and a clock where inotify is not to be had.

An event only means "look again". What changed is found by listing, so that a lost event costs
time and never truth.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from kproxy.watch.manifests.folder import Identity, is_manifest

QUIET_S = 0.02  # files written together are read together
BUSY_LIMIT_S = 0.5  # somebody who never pauses does not keep others waiting
WRITING_S = 1.0  # a file that is open for writing is left alone so long after its last write
WRITING_LIMIT_S = 5.0
RESCAN_S = 30.0
RESCAN_BLIND_S = 3.0  # when inotify does not tell

_NAMES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_WRITES = Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF
_GONE = Mask.IGNORED | Mask.UNMOUNT | Mask.Q_OVERFLOW
_LIMITS = {
    errno.ENOSPC: "fs.inotify.max_user_watches",
    errno.EMFILE: "fs.inotify.max_user_instances (or the limit of open files)",
}


@dataclass(frozen=True, slots=True)
class _Watched:
    path: str
    watch: Watch
    only: str  # the one name that matters in it, "" for all


class FolderNotice:
    """Watches the directories of one folder. Use from one event loop; `close` at the end."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log
        self._watched: dict[Identity, _Watched] = {}
        self._by_descriptor: dict[int, Identity] = {}
        self._writing: dict[str, tuple[float, float]] = {}  # first and last write seen
        self._complaint = ""
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._inotify is not None:
            self._inotify.close()

    def follow(self, directories: Mapping[Identity, str]) -> bool:
        """Watch these directories and no others; say whether any of them was not watched before.

        If so, what happened in it so far went unnoticed and it has to be listed again.
        """
        if self._inotify is None:
            return False
        wanted = {identity: (path, "") for identity, path in directories.items()}
        parent = self._parent()
        if parent is not None:  # the folder itself may be replaced, or come back
            wanted.setdefault(parent, (str(self._folder.parent), self._folder.name))
        for identity in [i for i, w in self._watched.items() if wanted.get(i) != (w.path, w.only)]:
            self._forget(self._inotify, identity)
        missing = wanted.keys() - self._watched.keys()
        try:
            for identity in missing:
                path, only = wanted[identity]
                self._watch(self._inotify, identity, path, only)
        except OSError as error:
            self._complain(error)
            return False
        if self._complaint:
            self._log.info("inotify watches the manifests again")
            self._complaint = ""
        return bool(missing)

    async def settled(self, longest_s: float) -> None:
        """Return once something has happened and the folder is quiet again, or after a while.

        Without inotify, or while a file is being written, the while is shorter than asked.
        """
        clock = asyncio.get_running_loop().time
        longest_s = min(longest_s, RESCAN_BLIND_S if self._complaint else RESCAN_S)
        release = min((self._release(*times) for times in self._writing.values()), default=None)
        if release is not None:
            longest_s = min(longest_s, max(release - clock(), 0))
        if not await self._something(longest_s):
            return
        deadline = clock() + BUSY_LIMIT_S
        while (left_s := min(QUIET_S, deadline - clock())) > 0:
            if not await self._something(left_s):
                return

    def being_written(self) -> frozenset[str]:
        """Return the files that somebody is writing; to read them now would show a half."""
        now = asyncio.get_running_loop().time()
        for path in [p for p, times in self._writing.items() if self._release(*times) <= now]:
            del self._writing[path]
        return frozenset(self._writing)

    @staticmethod
    def _release(first: float, last: float) -> float:
        """Return when a file counts as written although nobody has closed it."""
        return min(last + WRITING_S, first + WRITING_LIMIT_S)

    def _parent(self) -> Identity | None:
        try:
            status = os.stat(self._folder.parent)
        except OSError:
            return None
        return Identity(status.st_dev, status.st_ino)

    def _watch(self, inotify: Inotify, identity: Identity, path: str, only: str) -> None:
        mask = (_NAMES if only else _NAMES | _WRITES | _SELF) | Mask.ONLYDIR
        try:
            watch = inotify.add_watch(path, mask)
        except OSError as error:
            # Gone or closed since it was listed: the next listing says so.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise
            return
        self._watched[identity] = _Watched(path, watch, only)
        self._by_descriptor[watch.wd] = identity

    def _forget(self, inotify: Inotify, identity: Identity) -> None:
        watch = self._watched.pop(identity).watch
        self._by_descriptor.pop(watch.wd, None)
        try:
            inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel dropped it with its directory
                raise

    def _complain(self, error: OSError) -> None:
        """Say once that inotify does not work; the clock does instead."""
        what = error.strerror or str(error)
        if what == self._complaint:
            return
        self._complaint = what
        limit = _LIMITS.get(error.errno or 0)
        remedy = f"; raise the sysctl {limit}" if limit else ""
        self._log.warning(
            "cannot watch the manifests through inotify (%s): looking every %g s instead%s",
            what,
            RESCAN_BLIND_S,
            remedy,
        )

    async def _something(self, timeout_s: float) -> bool:
        """Wait for an event that may matter; say whether there was one."""
        if self._inotify is None:
            await asyncio.sleep(timeout_s)
            return False
        try:
            async with asyncio.timeout(timeout_s):
                while not self._matters(await self._inotify.get()):
                    pass
        except TimeoutError:
            return False
        return True

    def _matters(self, event: Event) -> bool:
        """Take an event in; say whether it calls for another look."""
        mask = event.mask
        watch = event.watch
        if mask & Mask.Q_OVERFLOW:
            self._writing.clear()  # the end of a write may be among what was lost
        identity = None if watch is None else self._by_descriptor.get(watch.wd)
        if mask & Mask.IGNORED and watch is not None and identity is not None:
            del self._watched[identity], self._by_descriptor[watch.wd]
        if watch is None or identity is None:
            # A queue that ran over tells of no directory; of one given up we need not know.
            return bool(mask & Mask.Q_OVERFLOW)
        if mask & (_GONE | _SELF) or event.name is None:
            return True
        name = event.name.name
        only = self._watched[identity].only if identity in self._watched else ""
        if only:
            return name == only
        if is_manifest(name):
            self._note_write(str(watch.path / name), mask)
            return True
        # A link or directory, or `..data` of a ConfigMap volume; other hidden files never matter.
        return bool(mask & _NAMES) and (name.startswith("..") or not name.startswith("."))

    def _note_write(self, path: str, mask: Mask) -> None:
        if mask & Mask.MODIFY:
            now = asyncio.get_running_loop().time()
            first, _ = self._writing.get(path, (now, now))
            self._writing[path] = (first, now)
        elif mask & (Mask.CLOSE_WRITE | _NAMES):
            self._writing.pop(path, None)
