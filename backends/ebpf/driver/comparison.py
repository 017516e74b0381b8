"""Comparing maps with what they shall hold, at a bounded cost: a change may have to wait for it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from backends.ebpf.render.layout import TableMap
from backends.kernel.bpf.maps import Map
from kproxy.core.image import Key

# Entries that are compared in a second. With 10,000 Services one map has as many, which take 12 ms,
# and another one has twice as many, which take 19 to 27.
_A_SECOND = 10_000
_A_MAP = 100  # that many entries cost as much as a map without any
_AT_ONCE = 4096

_Parts = list[tuple[bytearray, bytearray]]


class Comparison:
    """Compares some maps at each call, all of them after a few.

    A map that reads as it did when it was compared last, and was to hold the same, is not compared
    again entry by entry.
    """

    def __init__(self, maps: Mapping[TableMap, Map], clock: Callable[[], float]) -> None:
        self._maps = maps
        self._clock = clock
        self._budget = float(_A_SECOND)
        self._counted_at = clock()
        self._left: list[TableMap] = []
        self._checksum: dict[TableMap, int] = {}

    def expect_anew(self, of: TableMap) -> None:
        """Note that a map shall hold something else from now on."""
        self._checksum.pop(of, None)

    def differs(self, image: Mapping[Key, bytes], counts: Mapping[TableMap, int]) -> bool:
        """Say whether a map was met that does not hold its part of an image.

        `counts` says how many entries of the image each map has.
        """
        now = self._clock()
        self._budget = min(_A_SECOND, self._budget + (now - self._counted_at) * _A_SECOND)
        self._counted_at = now
        for _ in self._maps:
            if self._budget < 0:
                return False
            self._left = self._left or list(self._maps)
            of = self._left.pop()
            self._budget -= counts[of] + _A_MAP
            if not self._holds(of, image, counts[of]):
                return True
        return False

    def _holds(self, of: TableMap, image: Mapping[Key, bytes], count: int) -> bool:
        parts = list(self._maps[of].raw_parts(min(_AT_ONCE, count + _A_MAP)))
        checksum = 0
        for each in chain.from_iterable(parts):
            checksum = zlib.crc32(each, checksum)
        if self._checksum.get(of) == checksum:
            return True
        found = dict(self._entries(of, parts))
        if len(found) != count or not found.items() <= image.items():
            return False
        self._checksum[of] = checksum
        return True

    def _entries(self, of: TableMap, parts: _Parts) -> Iterable[tuple[bytes, bytes]]:
        shape = self._maps[of].shape
        for keys, values in parts:
            prefixed = map(of.prefix.__add__, _cut(keys, shape.key_size))
            yield from zip(prefixed, _cut(values, shape.value_size), strict=True)


def _cut(row: bytearray, size: int) -> Iterator[bytes]:
    return chain.from_iterable(struct.iter_unpack(f"{size}s", row))
