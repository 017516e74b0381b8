"""What service ports take of the maps, and which of them there is room for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from backends.ebpf.render.layout import MAX_TARGETS, TableMap
from backends.ebpf.render.lists import chunk_count
from backends.ebpf.render.service_port import sources, wants_members
from kproxy.core.table import ServicePort, ServicePortKey

# The part of a map that stays free: a new list stands beside the old one for a moment.
_RESERVE = 16

Room = Mapping[TableMap, int]


class Asked(NamedTuple):
    """A service port that was asked for, with the digest and the length of its list."""

    entry: ServicePort
    digest: bytes
    length: int


class Only(NamedTuple):
    """Whether a service port is the only one to need its list, and the only one its members."""

    chunks: bool
    members: bool


class Usage:
    """Counts entries by map. A list is there once, however many service ports share it."""

    def __init__(self, *, wildcards: int = 0) -> None:
        self.wildcards = wildcards
        self._frontends = 0
        self._sources = 0
        self._chunks = 0
        self._members = 0
        self._users: dict[bytes, set[ServicePortKey]] = {}
        self._seekers: dict[bytes, set[ServicePortKey]] = {}

    def add(self, asked: Asked) -> Only:
        """Count a service port in; return what it is the first one to need."""
        entry, digest, length = asked
        seeks = wants_members(entry)
        first = Only(
            chunks=length > 0 and _join(self._users, digest, entry.key),
            members=length > 0 and seeks and _join(self._seekers, digest, entry.key),
        )
        self._count(asked, first, 1)
        return first

    def remove(self, asked: Asked) -> Only:
        """Undo `add`; return what it was the last one to need."""
        entry, digest, _ = asked
        last = Only(
            chunks=_leave(self._users, digest, entry.key),
            members=_leave(self._seekers, digest, entry.key),
        )
        self._count(asked, last, -1)
        return last

    def users(self, digest: bytes) -> Collection[ServicePortKey]:
        """Return which service ports have a list."""
        return self._users.get(digest, ())

    def excess(self, room: Room) -> TableMap | None:
        """Return a map that cannot hold what was counted, None if there is none."""
        counted = {
            TableMap.FRONTENDS: self.wildcards + self._frontends,
            TableMap.CHUNKS: self._chunks,
            TableMap.MEMBERS: self._members,
            TableMap.SOURCE_RANGES: self._sources,
        }
        return next((each for each, count in counted.items() if count > room[each]), None)

    def _count(self, asked: Asked, only: Only, sign: int) -> None:
        entry, _, length = asked
        self._frontends += sign * len(entry.frontends)
        self._sources += sign * len(sources(entry))
        self._chunks += sign * only.chunks * chunk_count(length)
        self._members += sign * only.members * length


def room_in(sizes: Mapping[str, int]) -> Room:
    """Return how many entries maps of these sizes, by name, may be asked for."""
    return {each: size - size // _RESERVE for each in TableMap if (size := sizes[each.map_name])}


def too_much(asked: Iterable[Asked], room: Room, *, wildcards: int) -> dict[ServicePortKey, str]:
    """Return the service ports that there is no room for, with the reasons: the last by name."""
    usage = Usage(wildcards=wildcards)
    reasons: dict[ServicePortKey, str] = {}
    for each in sorted(asked, key=_name):
        usage.add(each)
        full = usage.excess(room)
        if full is not None:
            usage.remove(each)
            reasons[each.entry.key] = (
                f"left out: the map {full.map_name} has room for {room[full]} entries"
            )
    return reasons


def impossible(asked: Asked) -> str:
    """Return why no map of any size can hold a service port, "" if one can."""
    if asked.length <= MAX_TARGETS:
        return ""
    return f"left out: {asked.length} endpoints are more than the {MAX_TARGETS} of a list"


def _name(asked: Asked) -> tuple[str, str, str, str]:
    namespace, name, port, protocol = asked.entry.key
    return namespace, name, port, protocol.value


def _join(users: dict[bytes, set[ServicePortKey]], digest: bytes, key: ServicePortKey) -> bool:
    """Say whether it is the first."""
    if digest in users:
        users[digest].add(key)
        return False
    users[digest] = {key}
    return True


def _leave(users: dict[bytes, set[ServicePortKey]], digest: bytes, key: ServicePortKey) -> bool:
    """Say whether it was the last; who did not use it is none."""
    if key not in users.get(digest, ()):
        return False
    users[digest].discard(key)
    if users[digest]:
        return False
    del users[digest]
    return True
