"""A folder of manifests as a source of API objects."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kproxy.core.causes import LeftOut
from kproxy.core.objects import KIND_OF, Kind, Node, Object, ObjectKey
from kproxy.core.store import Change, Replaced
from kproxy.ports.source import WITHOUT_NODE, SourceState, SourceStatus
from kproxy.watch.manifests.content import Content, Ref, read_content, unusable
from kproxy.watch.manifests.folder import (
    CannotRead,
    FolderContents,
    Identity,
    Stamp,
    list_folder,
    read_text,
)
from kproxy.watch.manifests.merge import Merge, Merged
from kproxy.watch.manifests.notice import RESCAN_S, FolderNotice
from kproxy.watch.manifests.problems import Problem, Severity, is_error

LOST_RESCAN_S = 1.0  # how often to look for a folder that is gone
_MOST_NODES = 3  # named where the one that is wanted is missing
MAX_ROUNDS = 5  # of listing again because directories appeared meanwhile

_LEVELS = {Severity.ERROR: logging.ERROR, Severity.WARNING: logging.WARNING}


class FolderLost(Exception):
    """The folder itself cannot be read; the text is one line that names it and says why."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a folder holds: valid objects, and everything that is wrong, errors and warnings.

    `left_out`: what would be a Service, or have endpoints of one, if it was right.
    """

    objects: tuple[Object, ...]
    problems: tuple[Problem, ...]
    left_out: tuple[LeftOut, ...]

    def changes(self) -> tuple[Replaced, ...]:
        """Return the objects as a complete list of each kind."""
        of_kind: dict[Kind, list[Object]] = {kind: [] for kind in Kind}
        for loaded in self.objects:
            of_kind[KIND_OF[type(loaded)]].append(loaded)
        return tuple(Replaced(kind, tuple(objects)) for kind, objects in of_kind.items())


def load(folder: Path) -> Manifests:
    """Read a folder once. Raises FolderLost."""
    files = ManifestFiles(folder)
    report = files.refresh(list_folder(folder))
    if report.lost:
        raise FolderLost(report.remarks[0].text)
    objects = tuple(o for replaced in files.everything() for o in replaced.objects)
    return Manifests(objects, files.problems(), files.left_out())


def missing_node(node_name: str, objects: Iterable[Object]) -> str | None:
    """Return what the lack of our Node object means, None if it is among `objects`."""
    nodes = sorted(o.key.name for o in objects if isinstance(o, Node))
    return None if node_name in nodes else _no_node(node_name, nodes)


def _no_node(node_name: str, others: Sequence[str]) -> str:
    named = ", ".join(others[:_MOST_NODES]) + (", …" if len(others) > _MOST_NODES else "")
    instead = f" (there is {named})" if named else ""
    return f"no Node object named {node_name} among the manifests{instead}: {WITHOUT_NODE}"


@dataclass(frozen=True, slots=True)
class Remark:
    """One line for the log."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a refresh found; `why_lost` is empty unless the folder cannot be read."""

    changes: tuple[Change, ...]
    remarks: tuple[Remark, ...]
    why_lost: str = ""

    @property
    def lost(self) -> bool:
        """Whether the folder cannot be read, so that nothing was changed."""
        return bool(self.why_lost)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when last read. Without a stamp it is read again at the next look."""

    stamp: Stamp | None
    digest: bytes  # of its text, or of the reason why there is none
    content: Content


class ManifestFiles:
    """What is in force of the files in a folder. Blocks while reading; logs nothing itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root: Identity | None = None
        self._files: dict[str, _File] = {}
        self._hidden: dict[str, str] = {}
        self._lost = ""
        self._merged = Merged()
        self._unused_told: set[str] = set()
        self._left_out: dict[str, tuple[LeftOut, ...]] = {}  # of those files that have any
        self._remarks: list[Remark] = []

    def everything(self) -> tuple[Replaced, ...]:
        """Return the objects in force as a complete list of each kind."""
        return self._merged.everything()

    def has_node(self, node_name: str) -> bool:
        """Say whether the Node object of this name is in force."""
        return self._merged.holds(Ref(Kind.NODE, ObjectKey("", node_name)))

    def nodes(self) -> tuple[Object, ...]:
        """Return the Node objects in force."""
        return next(r.objects for r in self.everything() if r.kind is Kind.NODE)

    def problems(self) -> tuple[Problem, ...]:
        """Return everything that is wrong now."""
        unused: dict[str, Problem] = {}
        found: list[Problem] = []
        for path in sorted(self._files):
            content = self._files[path].content
            found += content.problems
            for name, problem in content.unused.items():
                unused.setdefault(name, problem)
        hidden = (_about(path, why) for path, why in sorted(self._hidden.items()))
        return (*hidden, *found, *unused.values(), *self._merged.disputes())

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what would be a Service, or have endpoints of one, if it was right."""
        return tuple(
            left for _, file in sorted(self._files.items()) for left in file.content.left_out
        )

    def refresh(self, listing: FolderContents, being_written: Collection[str] = ()) -> Refresh:
        """Bring the objects in line with the folder.

        Only files that changed are read, and none of `being_written` (full paths).
        """
        self._remarks = []
        self._take_lost(listing.lost or self._unmounted(listing))
        if self._lost:
            return Refresh((), tuple(self._remarks), self._lost)
        self._root = listing.root
        self._take_hidden(listing.hidden)
        left_alone = {path.removeprefix(f"{self._folder}/") for path in being_written}
        for path, stamp in listing.files.items():
            if path not in left_alone:
                self._look_at(path, stamp)
        for path in self._files.keys() - listing.files.keys():
            if not any(path.startswith(directory + "/") for directory in listing.hidden):
                self._drop(path)
        merge = self._merged.step()
        self._remark_disputes(merge)
        return Refresh(merge.changes, tuple(self._remarks))

    def _unmounted(self, listing: FolderContents) -> str:
        """Return why an empty folder is not taken at its word, "" if it is.

        A mount point shows the empty directory below it when its file system goes away.
        """
        if listing.files or not self._files or self._root is None or listing.root is None:
            return ""
        moved = listing.root.device != self._root.device
        return "empty, and on another file system than before (unmounted?)" if moved else ""

    def _take_lost(self, why: str) -> None:
        if why and why != self._lost:
            kept = "; the last good content stays in force" if self._root else ""
            self._remark(logging.ERROR, f"manifest folder {self._folder}: {why}{kept}")
        elif self._lost and not why:
            self._remark(logging.INFO, f"manifest folder {self._folder}: can be read again")
        self._lost = why

    def _take_hidden(self, hidden: Mapping[str, str]) -> None:
        for path, why in hidden.items():
            if self._hidden.get(path) != why:
                self._remark(logging.ERROR, _about(path, why).text())
        for path in self._hidden.keys() - hidden.keys():
            self._remark(logging.INFO, f"{path}: can be read again")
        self._hidden = dict(hidden)

    def _look_at(self, path: str, stamp: Stamp | CannotRead) -> None:
        """Read a file if it may have changed."""
        before = self._files.get(path)
        if before is not None and before.stamp is not None and before.stamp == stamp:
            return
        try:
            if isinstance(stamp, CannotRead):
                raise stamp
            text = read_text(self._folder / path)
        except FileNotFoundError:
            self._drop(path)
            return
        except CannotRead as error:
            why = str(error)
            if before is None or before.digest != why.encode():
                self._take(path, _File(None, why.encode(), unusable(path, why)))
            return
        seen = None if text.racy else text.stamp
        if before is not None and before.digest == text.digest:
            self._files[path] = _File(seen, text.digest, before.content)
            return
        content = read_content(path, text.data)
        if before is not None:
            content = content.sharing(before.content)
        self._take(path, _File(seen, text.digest, content))

    def _take(self, path: str, now: _File) -> None:
        """Put a file's content in force and say what is new about it."""
        before = self._files.get(path)
        known = before.content.problems if before else ()
        for problem in now.content.problems:
            if problem not in known:
                self._remark(_LEVELS[problem.severity], problem.text())
        for name, problem in now.content.unused.items():
            if name not in self._unused_told:
                self._unused_told.add(name)
                self._remark(_LEVELS[problem.severity], problem.text())
        if is_error(known) and not is_error(now.content.problems):
            self._remark(logging.INFO, f"{path}: is valid again")
        if now.content.ignored:
            self._remark(logging.DEBUG, f"{path}: {now.content.ignored} objects are not needed")
        self._files[path] = now
        self._left_out.pop(path, None)
        if now.content.left_out:
            self._left_out[path] = now.content.left_out
        self._merged.take(path, now.content)

    def _drop(self, path: str) -> None:
        if self._files.pop(path, None) is not None:
            self._left_out.pop(path, None)
            self._merged.drop(path)

    def _remark_disputes(self, merge: Merge) -> None:
        for problem in merge.disputed:
            self._remark(logging.ERROR, problem.text())
        for ref, path in merge.settled:
            where = f"is in {path} alone again" if path else "is in no file any more"
            self._remark(logging.INFO, f"{ref}: {where}")

    def _remark(self, level: int, text: str) -> None:
        self._remarks.append(Remark(level, text))


def _about(directory: str, why: str) -> Problem:
    return Problem(Severity.ERROR, directory, None, None, "", "", f"cannot be read: {why}", "")


def _status(kind: Kind, state: SourceState, detail: str, refused: int) -> SourceStatus:
    listed = state is not SourceState.STARTING
    return SourceStatus(kind, state, time.time(), detail, lists=int(listed), refused=refused)


class ManifestSource:
    """Follows a folder of manifests and delivers what changes in it."""

    def __init__(self, folder: Path, *, node_name: str, log: logging.Logger) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._node_name = node_name
        self._log = log
        self._files = ManifestFiles(self._folder)
        self._node_missing = False
        self._statuses = {kind: _status(kind, SourceState.STARTING, "", 0) for kind in Kind}

    def status(self) -> tuple[SourceStatus, ...]:
        """Return how each kind is doing: all alike, but for the objects that were refused."""
        return tuple(self._statuses.values())

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what would be a Service or have endpoints, as of the last batch."""
        return self._files.left_out()

    async def batches(self) -> AsyncIterator[tuple[Change, ...]]:
        """Yield the changes of the folder's objects, without end.

        The first batch lists every kind completely (Replaced); it waits until the folder can be
        read. Later ones hold only what really changed.
        """
        notice = FolderNotice(self._folder, self._log)
        try:
            listed = False
            while True:
                report = await self._refresh(notice)
                for remark in report.remarks:
                    self._log.log(remark.level, "%s", remark.text)
                self._note_status(report)
                if not report.lost:
                    self._check_node()
                    batch = report.changes if listed else self._files.everything()
                    if not listed:
                        self._say_what_there_is(batch)
                    listed = True
                    if batch:
                        yield batch
                await notice.settled(LOST_RESCAN_S if report.lost else RESCAN_S)
        finally:
            notice.close()

    async def _refresh(self, notice: FolderNotice) -> Refresh:
        """Look at the folder until no directory was overlooked, then read what changed."""
        for _ in range(MAX_ROUNDS):
            listing = await asyncio.to_thread(list_folder, self._folder)
            if not notice.follow({**listing.linked, **listing.directories}):
                break
        return await asyncio.to_thread(self._files.refresh, listing, notice.being_written())

    def _note_status(self, report: Refresh) -> None:
        """Keep what `status` tells; a state's time is that of its beginning."""
        state = SourceState.FAILING if report.lost else SourceState.FOLLOWING
        errors = [each for each in self._files.problems() if each.severity is Severity.ERROR]
        for kind, before in self._statuses.items():
            refused = sum(each.object.startswith(f"{kind.value} ") for each in errors)
            now = _status(kind, state, report.why_lost, refused)
            same = before.state is state
            self._statuses[kind] = replace(now, since=before.since) if same else now

    def _check_node(self) -> None:
        missing = not self._files.has_node(self._node_name)
        if missing and not self._node_missing:
            self._log.warning("%s", missing_node(self._node_name, self._files.nodes()))
        elif self._node_missing and not missing:
            self._log.info("the Node object %s is there now", self._node_name)
        self._node_missing = missing

    def _say_what_there_is(self, batch: Iterable[Change]) -> None:
        counts = Counter({c.kind: len(c.objects) for c in batch if isinstance(c, Replaced)})
        text = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind)
        self._log.info("manifests in %s: %s objects", self._folder, text)
