"""All files of a folder taken together: which objects are in force. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kproxy.core.objects import Kind, Object
from kproxy.core.store import Change, Deleted, Replaced, Upserted
from kproxy.watch.manifests.content import Content, Ref
from kproxy.watch.manifests.problems import Problem, Severity


@dataclass(frozen=True, slots=True)
class Merge:
    """What a step changed: the objects in force, and the objects that several files claim."""

    changes: tuple[Change, ...]
    disputed: tuple[Problem, ...]  # new, or with other files than before
    settled: tuple[tuple[Ref, str], ...]  # no longer disputed, and the one file left ("" if none)


class Merged:
    """The objects of all files, each with the last good version that its file gave.

    An object that several files hold counts as the file says whose path sorts first, whatever
    was read first.
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[Ref, Object]] = {}
        self._claims: dict[Ref, set[str]] = {}
        self._in_force: dict[Ref, Object] = {}
        self._disputes: dict[Ref, tuple[str, ...]] = {}
        self._touched: set[Ref] = set()

    def take(self, path: str, content: Content) -> None:
        """Take in what a file says now."""
        before = self._files.get(path, {})
        now = dict(content.objects)
        for ref, last_good in before.items():
            if ref not in now and (content.obscure or ref in content.rejected):
                now[ref] = last_good
        self._put(path, before, now)

    def drop(self, path: str) -> None:
        """Forget a file that is gone."""
        self._put(path, self._files.get(path, {}), {})

    def step(self) -> Merge:
        """Return what has changed since the last step."""
        changes: list[Change] = []
        disputed: list[Problem] = []
        settled: list[tuple[Ref, str]] = []
        for ref in sorted(self._touched, key=lambda ref: (ref.kind.value, ref.key)):
            paths = tuple(sorted(self._claims.get(ref, ())))
            change = self._choose(ref, paths)
            if change is not None:
                changes.append(change)
            had = self._disputes.pop(ref, ())
            if len(paths) > 1:
                self._disputes[ref] = paths
                if had != paths:
                    disputed.append(_dispute(ref, paths))
            elif had:
                settled.append((ref, paths[0] if paths else ""))
        self._touched.clear()
        return Merge(tuple(changes), tuple(disputed), tuple(settled))

    def everything(self) -> tuple[Replaced, ...]:
        """Return the objects in force as a complete list of each kind."""
        of_kind: dict[Kind, list[Object]] = {kind: [] for kind in Kind}
        for ref, current in self._in_force.items():
            of_kind[ref.kind].append(current)
        return tuple(Replaced(kind, tuple(objects)) for kind, objects in of_kind.items())

    def holds(self, ref: Ref) -> bool:
        """Say whether an object is in force, as of the last step."""
        return ref in self._in_force

    def disputes(self) -> tuple[Problem, ...]:
        """Return every object that several files claim now."""
        return tuple(_dispute(ref, paths) for ref, paths in self._disputes.items())

    def _put(self, path: str, before: dict[Ref, Object], now: dict[Ref, Object]) -> None:
        for ref in before.keys() - now.keys():
            self._claims[ref].discard(path)
            if not self._claims[ref]:
                del self._claims[ref]
            self._touched.add(ref)
        for ref, current in now.items():
            self._claims.setdefault(ref, set()).add(path)
            if before.get(ref) != current:
                self._touched.add(ref)
        if now:
            self._files[path] = now
        else:
            self._files.pop(path, None)

    def _choose(self, ref: Ref, paths: tuple[str, ...]) -> Change | None:
        """Put the object of the first path in force; return the change if there is one."""
        old = self._in_force.get(ref)
        if not paths:
            self._in_force.pop(ref, None)
            return Deleted(ref.kind, ref.key) if old is not None else None
        new = self._files[paths[0]][ref]
        self._in_force[ref] = new
        return Upserted(new) if new != old else None


def _dispute(ref: Ref, paths: tuple[str, ...]) -> Problem:
    first, *others = paths
    why = f"is also in {first}, which counts"
    if len(others) > 1:
        why += f" (and in {', '.join(others[1:])})"
    return Problem(Severity.ERROR, others[0], None, None, str(ref), "", why, "")
