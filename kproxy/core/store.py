"""The API objects in force, and what changed them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kproxy.core.addresses import Network
from kproxy.core.objects import KIND_OF, Kind, Object, ObjectKey


@dataclass(frozen=True, slots=True)
class Replaced:
    """A complete list of one kind: whatever it lacks is gone."""

    kind: Kind
    objects: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Upserted:
    """One object was added or changed."""

    object: Object


@dataclass(frozen=True, slots=True)
class Deleted:
    """One object is gone."""

    kind: Kind
    key: ObjectKey


ObjectChange = Replaced | Upserted | Deleted


@dataclass(frozen=True, slots=True)
class Connected:
    """These are all networks that this node is directly connected to, of both families."""

    networks: frozenset[Network]


Change = ObjectChange | Connected


@dataclass(frozen=True, slots=True)
class Difference:
    """One object before and after a change; None means that it does not exist."""

    old: Object | None
    new: Object | None


class Store:
    """The objects in force, by kind and key."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[ObjectKey, Object]] = {kind: {} for kind in Kind}
        self._listed: set[Kind] = set()

    def listed(self, kind: Kind) -> bool:
        """Say whether a complete list of this kind has been seen."""
        return kind in self._listed

    def all(self, kind: Kind) -> Iterable[Object]:
        """Return every object of a kind."""
        return self._objects[kind].values()

    def get(self, kind: Kind, key: ObjectKey) -> Object | None:
        """Return one object, None if there is none."""
        return self._objects[kind].get(key)

    def apply(self, change: ObjectChange) -> list[Difference]:
        """Take a change in and return what it altered; an equal object alters nothing."""
        if isinstance(change, Replaced):
            return self._replace(change)
        if isinstance(change, Upserted):
            return self._put(change.object)
        old = self._objects[change.kind].pop(change.key, None)
        return [] if old is None else [Difference(old, None)]

    def _put(self, new: Object) -> list[Difference]:
        objects = self._objects[KIND_OF[type(new)]]
        old = objects.get(new.key)
        if old == new:
            return []
        objects[new.key] = new
        return [Difference(old, new)]

    def _replace(self, change: Replaced) -> list[Difference]:
        self._listed.add(change.kind)
        objects = self._objects[change.kind]
        kept = {new.key for new in change.objects}
        gone = [key for key in objects if key not in kept]
        differences = [Difference(objects.pop(key), None) for key in gone]
        for new in change.objects:
            differences += self._put(new)
        return differences
