"""The ipsets of one family, and their elements, as part of the image.

They also tell which virtual servers are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from backends.ipvs.render.entries import marked, member_key, server_key, split_member
from backends.ipvs.render.marks import is_ours
from backends.ipvs.render.sets import (
    AT_FRONTENDS,
    SET_PREFIX,
    WITHOUT_SERVER,
    SetKind,
    set_name,
    sets,
    shape_value,
)
from backends.kernel import ipset, ipset_elements
from backends.kernel.ipset_elements import Element, ElementSet
from backends.kernel.xtables.wording import set_key
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, Image, Key

_LOOK_EVERY_S = 2.5  # 20,000 elements take 10 ms
_PLACE_BYTES = 3  # of a protocol and a port, around the address


class Sets:
    """One family's sets. Whoever refers to them is written after them, and leaves before them."""

    def __init__(self, family: Family, clock: Callable[[], float] = time.monotonic) -> None:
        self._family = family
        self._clock = clock
        self._next_look_at = 0.0
        self._by_key = {set_key(set_name(family, kind)): kind for kind in SetKind}
        # What is in each, as observed and written last.
        self._members: dict[SetKind, dict[Key, bytes]] = {kind: {} for kind in SetKind}
        self._right: dict[SetKind, int] = {}  # a digest of what the kernel told when that was it

    def observe(self) -> Image:
        """Read back our sets with all that is in them. Raises BackendError."""
        image: dict[Key, bytes] = {}
        self._members = {kind: {} for kind in SetKind}
        self._right.clear()
        for name, (kind_of, marks) in ipset_elements.observe(self._prefix).items():
            key = set_key(name)
            image[key] = shape_value(self._family, kind_of, marks=marks)
            kind = self._by_key.get(key)
            if kind is not None and image[key] == sets(self._family)[key]:
                self._members[kind] = _members(kind, ipset_elements.elements(self._set(kind)))
                if kind.value.rendered:
                    image.update(self._members[kind])
        return image

    def names(self) -> Collection[str]:
        """Return which sets of ours there are. Raises BackendError."""
        return ipset.names(self._prefix)

    def owns(self, server: bytes) -> bool:
        """Say whether a virtual server is ours, by its key's bytes.

        Those of our marks are; others stand at a frontend of ours that has one, or are leaving.
        """
        if mark := marked(server):
            return is_ours(mark)
        if self._is_in((SetKind.LEAVING,), server):
            return True
        return self._is_in(AT_FRONTENDS, server) and not self._is_in(WITHOUT_SERVER, server)

    def leaving(self) -> Iterator[bytes]:
        """Yield the virtual servers that are there for open connections alone, by their bytes."""
        for key in self._members[SetKind.LEAVING]:
            member = split_member(key)
            if member is not None:
                yield member[1]

    def keep(self, kind: SetKind, elements: Iterable[bytes]) -> None:
        """Let a set that is not rendered have these elements and no others. Raises BackendError."""
        wanted = {member_key(kind, each): b"" for each in elements}
        had = self._members[kind]
        self._add({key: value for key, value in wanted.items() if key not in had})
        self._remove(had.keys() - wanted.keys())

    def counts(self) -> Mapping[SetKind, int]:
        """Return how many elements each of our sets has."""
        return {kind: len(members) for kind, members in self._members.items()}

    def disturbed(self) -> bool:
        """Say whether others changed what is in sets of ours. Raises BackendError.

        That there is more or less in one shows at once, other elements and marks every few seconds.
        """
        found = ipset_elements.sizes(self._prefix)
        names = {kind: set_name(self._family, kind) for kind in SetKind}
        if any(found.get(names[kind]) != len(self._members[kind]) for kind in SetKind):
            return True
        if self._clock() < self._next_look_at:
            return False
        self._next_look_at = self._clock() + _LOOK_EVERY_S
        return any(map(self._is_altered, SetKind))

    def put(self, changes: Changes) -> None:
        """Make what is missing of sets and elements. Raises BackendError.

        A virtual server that comes or goes while its place is in a set of those without one is
        known by another set meanwhile.
        """
        missing = [kind for key, kind in self._by_key.items() if key in changes.put]
        ipset_elements.make(map(self._set, missing))
        self._add({member_key(SetKind.LEAVING, each): b"" for each in _passing(changes)})
        self._add(changes.put)

    def drop(self, changes: Changes) -> None:
        """Remove the elements that are not wanted any more, and sets. Raises BackendError."""
        self._remove(changes.drop)
        ipset.destroy(name for name in self.names() if set_key(name) in changes.drop)

    def clean_up(self) -> int:
        """Remove all of it; return how many sets there were. Raises BackendError."""
        return ipset.destroy(self.names())

    def _is_in(self, kinds: Iterable[SetKind], server: bytes) -> bool:
        return any(member_key(kind, server) in self._members[kind] for kind in kinds)

    def _add(self, values: Mapping[Key, bytes]) -> None:
        for kind, elements in self._by_kind(values).items():
            found = (_element(kind, each, values[key]) for key, each in elements)
            ipset_elements.add(self._set(kind), found)
            self._members[kind].update((key, values[key]) for key, _ in elements)
            self._right.pop(kind, None)

    def _remove(self, keys: Iterable[Key]) -> None:
        for kind, elements in self._by_kind(keys).items():
            found = (_element(kind, each, b"") for _, each in elements)
            ipset_elements.remove(self._set(kind), found)
            for key, _ in elements:
                self._members[kind].pop(key, None)
            self._right.pop(kind, None)

    @property
    def _prefix(self) -> str:
        return f"{SET_PREFIX}{'4' if self._family is Family.IPV4 else '6'}-"

    def _set(self, kind: SetKind) -> ElementSet:
        shape = kind.value
        return ElementSet(set_name(self._family, kind), shape.type, self._family, shape.marks)

    def _is_altered(self, kind: SetKind) -> bool:
        content = ipset_elements.told(self._set(kind))
        digest = hash(content)
        if self._right.get(kind) == digest:
            return False
        if _members(kind, ipset_elements.read(content)) != self._members[kind]:
            return True
        self._right[kind] = digest
        return False

    def _by_kind(self, keys: Iterable[Key]) -> dict[SetKind, list[tuple[Key, bytes]]]:
        found: dict[SetKind, list[tuple[Key, bytes]]] = {}
        for key in keys:
            member = split_member(key)
            if member is not None:
                kind, element = member
                found.setdefault(kind, []).append((key, element))
        return found


def _members(kind: SetKind, elements: Iterable[Element]) -> dict[Key, bytes]:
    """Return the part of an image that is in a set, from the kernel's elements."""
    return {
        member_key(kind, _bytes(kind, each)): b""
        if each.mark is None
        else each.mark.to_bytes(4, "big")
        for each in elements
    }


def _passing(changes: Changes) -> Iterator[bytes]:
    """Yield the virtual servers that change together with whether their place has one."""
    for keys in (changes.put, changes.drop):
        for key in keys:
            member = split_member(key)
            if member is not None and member[0] in WITHOUT_SERVER:
                server = server_key(member[1])
                if server in changes.put or server in changes.drop:
                    yield member[1]


def _element(kind: SetKind, element: bytes, value: bytes) -> Element:
    """Return an element of the kernel's from the bytes of one of the image's."""
    mark = int.from_bytes(value, "big") if value else None
    match kind.value.type:
        case "bitmap:port":
            return Element(port=_number(element), mark=mark)
        case "hash:ip":
            return Element(address=element, mark=mark)
    with_network = kind.value.type.endswith(",net")
    width = (len(element) - _PLACE_BYTES - 1) // 2 if with_network else len(element) - _PLACE_BYTES
    place, rest = element[: width + _PLACE_BYTES], element[width + _PLACE_BYTES :]
    return Element(
        address=place[1:-2],
        protocol=place[0],
        port=_number(place[-2:]),
        network=rest[:-1],
        length=rest[-1] if rest else 0,
        mark=mark,
    )


def _bytes(kind: SetKind, element: Element) -> bytes:
    """Return an element of the image's, as bytes, from one of the kernel's."""
    port = b"" if element.port is None else element.port.to_bytes(2, "big")
    match kind.value.type:
        case "bitmap:port":
            return port
        case "hash:ip":
            return element.address
    place = bytes([element.protocol]) + element.address + port
    if not kind.value.type.endswith(",net"):
        return place
    return place + element.network + bytes([element.length])


def _number(port: bytes) -> int:
    return int.from_bytes(port, "big")
