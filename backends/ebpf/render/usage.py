"""What service ports take of the maps, and which of them there is room for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from backends.ebpf.render.layout import MAX_TARGETS, TableMap
from backends.ebpf.render.lists import chunk_count
from backends.ebpf.render.service_port import sources, wants_members
from kproxy.core.table import ServicePort, ServicePortKey

# The part of a map that stays free: a new list stands beside the old one for a moment.
_RESERVE = 16

Room = Mapping[TableMap, int]
Users = Counter[bytes]  # of lists, by their digests


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
        self._users: Users = Counter()
        self._seekers: Users = Counter()

    def add(self, asked: Asked) -> Only:
        """Count a service port in; return what it is the first one to need."""
        first = _each(asked, self._users, self._seekers, _join)
        self._count(asked, first, 1)
        return first

    def remove(self, asked: Asked) -> Only:
        """Undo `add`; return what it was the last one to need."""
        last = _each(asked, self._users, self._seekers, _leave)
        self._count(asked, last, -1)
        return last

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


def _each(
    asked: Asked, users: Users, seekers: Users, count: Callable[[Users, bytes], bool]
) -> Only:
    has_list = asked.length > 0
    return Only(
        chunks=has_list and count(users, asked.digest),
        members=has_list and wants_members(asked.entry) and count(seekers, asked.digest),
    )


def _join(users: Users, digest: bytes) -> bool:
    """Count one in; say whether it is the first."""
    users[digest] += 1
    return users[digest] == 1


def _leave(users: Users, digest: bytes) -> bool:
    """Count one out; say whether it was the last."""
    users[digest] -= 1
    if users[digest]:
        return False
    del users[digest]
    return True
