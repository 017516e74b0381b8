"""What changed and was not taken yet, however much it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from kproxy.core.objects import Kind, Object, ObjectKey
from kproxy.core.store import Change, Deleted, Replaced, Upserted

SingleChange = Upserted | Deleted


class Inbox:
    """Collects changes from several threads for one reader.

    An object counts once, as it was last: a reader that is slow gets less to read, and what waits
    for it stays as small as the cluster. `wake` is called, in any thread, when there is something
    new.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._listed: dict[Kind, dict[ObjectKey, Object]] = {}
        self._changes: dict[Kind, dict[ObjectKey, SingleChange]] = {}  # of kinds not in `_listed`
        self._closed = False
        self.abandoned = False

    def replace(self, kind: Kind, objects: dict[ObjectKey, Object]) -> None:
        """Take a complete list; the inbox keeps the dict."""
        with self._lock:
            self._listed[kind] = objects
            self._changes.pop(kind, None)
            self._rouse()

    def change(self, kind: Kind, changes: Iterable[SingleChange]) -> None:
        """Take changes of single objects of a kind, in their order."""
        with self._lock:
            listed = self._listed.get(kind)
            if listed is None:
                pending = self._changes.setdefault(kind, {})
                for change in changes:
                    pending[_key(change)] = change
            else:
                for change in changes:
                    if isinstance(change, Upserted):
                        listed[change.object.key] = change.object
                    else:
                        listed.pop(change.key, None)
            self._rouse()

    def rouse(self) -> None:
        """Let the reader look around although nothing changed here."""
        with self._lock:
            self._rouse()

    def listed(self, kind: Kind) -> tuple[Object, ...] | None:
        """Return a complete list that was not taken yet, None if there is none."""
        with self._lock:
            objects = self._listed.get(kind)
            return None if objects is None else tuple(objects.values())

    def take(self) -> tuple[Change, ...]:
        """Return what is there, and forget it."""
        with self._lock:
            listed, self._listed = self._listed, {}
            changes, self._changes = self._changes, {}
        batch: list[Change] = []
        for kind, objects in listed.items():
            batch.append(Replaced(kind, tuple(objects.values())))
        for singles in changes.values():
            batch += singles.values()
        return tuple(batch)

    def abandon(self) -> None:
        """Note that a thread which should fill the inbox does not any more."""
        with self._lock:
            self.abandoned = True
            self._rouse()

    def close(self) -> None:
        """Wake nobody from now on."""
        with self._lock:
            self._closed = True

    def _rouse(self) -> None:
        if not self._closed:
            self._wake()


def _key(change: SingleChange) -> ObjectKey:
    return change.object.key if isinstance(change, Upserted) else change.key
