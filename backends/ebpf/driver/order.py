"""In which order entries are written and removed, so that no packet meets half a change. Pure.

- What frontends lead to is there before them and goes after them.
- A clusterIP's wildcard comes after its frontends and goes before them: it refuses their ports.
- The longest network comes first and goes last: it is an exception to those around it. Networks
  decide over what no frontend has, so they come after frontends and go before them.
- Frontends are written for what tells pods apart: that comes before them where it begins to, and
  after them where it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from backends.ebpf.render.layout import ANY_PORT, NO_DIGEST, Layout, TableMap
from kproxy.core.image import Key

_LED_TO = (TableMap.CHUNKS, TableMap.MEMBERS, TableMap.SOURCE_RANGES)
_NETWORKS = (TableMap.NODE_PORT_NETWORKS, TableMap.UNCLAIMED_NETWORKS)
_NOBODY = b"\xff" * len(NO_DIGEST)  # no digest that anybody will ever meet
_NO_PROTOCOL = 255  # reserved by IANA


class Step(NamedTuple):
    """Entries of one map, by their image keys, in order."""

    of: TableMap
    keys: list[bytes]


def of_writing(layout: Layout, put: Mapping[Key, bytes]) -> Iterator[Step]:
    """Yield the steps in which entries are written."""
    keys = _by_map(put)
    rules = Step(TableMap.TABLE_RULES, keys[TableMap.TABLE_RULES])
    detects = any(layout.detects_pods(put[key]) for key in rules.keys)
    if detects:
        yield rules
    for of in _LED_TO:
        yield Step(of, keys[of])
    yield Step(TableMap.FRONTENDS, sorted(keys[TableMap.FRONTENDS], key=layout.is_wildcard))
    for of in _NETWORKS:
        yield Step(of, sorted(keys[of], key=layout.bits, reverse=True))
    if not detects:
        yield rules


def of_removing(layout: Layout, drop: Collection[Key]) -> Iterator[Step]:
    """Yield the steps in which entries are removed."""
    keys = _by_map(drop)
    for of in _NETWORKS:
        yield Step(of, sorted(keys[of], key=layout.bits))
    frontends = keys[TableMap.FRONTENDS]
    yield Step(TableMap.FRONTENDS, sorted(frontends, key=layout.is_wildcard, reverse=True))
    for of in (*_LED_TO, TableMap.TABLE_RULES):
        yield Step(of, keys[of])


def needed_for(layout: Layout, key: Key) -> bytes | None:
    """Return the digest by which frontends find an entry, None if they do not lead to it."""
    raw = raw_key(key)
    match TableMap(raw[0]):
        case TableMap.CHUNKS | TableMap.MEMBERS:
            return layout.list_of(raw)
        case TableMap.SOURCE_RANGES:
            return layout.service_of(raw)
        case _:
            return None


def scratch(layout: Layout, of: TableMap, number: int) -> bytes:
    """Return a key of a map, without the map's byte, that no packet is looked up by."""
    unique = number.to_bytes(4, "big")
    match of:
        case TableMap.SOURCE_RANGES:
            address = unique.rjust(len(layout.unspecified), b"\0")
            return layout.source_key.pack(8 * len(_NOBODY + address), _NOBODY, address)
        case TableMap.CHUNKS:
            return layout.chunk_key.pack(_NOBODY, number)
        case TableMap.MEMBERS:
            return layout.member_key.pack(_NOBODY, unique.ljust(len(layout.unspecified)), b"")
        case _:
            nobody = unique.ljust(len(layout.unspecified))
            return layout.frontend_key.pack(nobody, ANY_PORT, _NO_PROTOCOL)


def raw_key(key: Key) -> bytes:
    """Return an image key that is one of a map. Raises KeyError for any other."""
    if isinstance(key, str):
        raise KeyError(key)
    return key


def _by_map(keys: Iterable[Key]) -> dict[TableMap, list[bytes]]:
    found: dict[TableMap, list[bytes]] = {of: [] for of in TableMap}
    by_number = {of.value: into for of, into in found.items()}
    for key in keys:
        raw = raw_key(key)
        by_number[raw[0]].append(raw)
    return found
