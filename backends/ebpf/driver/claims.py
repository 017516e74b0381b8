"""Which addresses may be ours, so that the programs pass all others on at once.

ebpf/include/kproxy/claims.h says what is in the map, and what the programs make of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable

from backends.kernel.bpf.maps import Map
from kproxy.core.addresses import Family

_WORDS, _PREFIX_WORDS = 16384, 1024
_COMPLETE = _WORDS + _PREFIX_WORDS
_FACTOR = 0x9E3779B1
_MASK = 0xFFFFFFFF
_PREFIX_BITS = {Family.IPV4: 16, Family.IPV6: 64}  # by which a network is known
_PREFIXES = 1 << 16
_INDEX = struct.Struct("=I")
_WORD = struct.Struct("=QQ")
_FRONTENDS, _ENDPOINTS = 0, 1  # places in a struct claim_word


class Claims:
    """The claims of one family. Any call may raise BackendError.

    Only one object at a time may write to a map. None is taken back: open flows need them longer
    than any table, and one too many costs time alone.
    """

    def __init__(self, family: Family, claims: Map) -> None:
        self._map = claims
        self._prefix_bits = _PREFIX_BITS[family]
        self._words = array("Q")  # an array map is read in the order of its keys
        for _, values in claims.raw_parts():
            self._words.frombytes(values)

    def add(self, addresses: Iterable[bytes]) -> None:
        """Claim addresses (packed) of frontends, or the node's own: before anything leads there."""
        self._set(_FRONTENDS, _bits(addresses))

    def add_endpoints(self, addresses: Iterable[bytes]) -> None:
        """Claim addresses of endpoints: before anything leads there."""
        self._set(_ENDPOINTS, _bits(addresses))

    def add_networks(self, networks: Iterable[tuple[bytes, int]]) -> None:
        """Claim networks by their addresses and lengths: all that begins as they do."""
        for address, bits in networks:
            missing = max(0, self._prefix_bits - bits)
            if missing > 16 or (missing and self._prefix_bits == 64):
                self._set(_FRONTENDS, ((_WORDS + n // 64, n % 64) for n in range(_PREFIXES)))
            else:
                self._set(_FRONTENDS, self._prefixes(address, 1 << missing))

    def complete(self) -> None:
        """Let the programs take for foreign what is not claimed."""
        self._set(_FRONTENDS, [(_COMPLETE, 0)])

    def audit(self) -> int:
        """Set again what somebody took back; return how many words lacked a bit."""
        there = array("Q")
        for _, values in self._map.raw_parts():
            there.frombytes(values)
        if there == self._words:
            return 0
        lacking = {
            _INDEX.pack(at // 2): self._word(at // 2)
            for at, (mine, found) in enumerate(zip(self._words, there, strict=True))
            if mine & ~found
        }
        if lacking:
            self._map.update_many(lacking)
        return len(lacking)

    def _prefixes(self, address: bytes, count: int) -> Iterable[tuple[int, int]]:
        if self._prefix_bits == 16:
            first = int.from_bytes(address[:2]) & ~(count - 1)
        else:
            first = hashes([address[:8]])[0] >> 16
        return ((_WORDS + n // 64, n % 64) for n in range(first, first + count))

    def _set(self, role: int, bits: Iterable[tuple[int, int]]) -> None:
        """Set bits, by word and place in it."""
        words, changed = self._words, set()
        for word, bit in bits:
            at = 2 * word + role
            if not words[at] >> bit & 1:
                words[at] |= 1 << bit
                changed.add(word)
        if changed:
            self._map.update_many({_INDEX.pack(n): self._word(n) for n in changed})

    def _word(self, number: int) -> bytes:
        return _WORD.pack(*self._words[2 * number : 2 * number + 2])


def _bits(addresses: Iterable[bytes]) -> Iterable[tuple[int, int]]:
    return ((hash_ >> 18, hash_ >> 12 & 63) for hash_ in hashes(addresses))


def hashes(addresses: Iterable[bytes]) -> list[int]:
    """Return the hashes of addresses of one length, or of beginnings, as the programs have them.

    All at once, as it is done for 100,000 of them at a start.
    """
    each = list(addresses)
    if not each:
        return []
    words = memoryview(b"".join(each)).cast("I")
    hashes, step = [0] * len(each), len(words) // len(each)
    for at in range(step):
        column = words[at::step]
        hashes = [
            (hash_ ^ word) * _FACTOR & _MASK for hash_, word in zip(hashes, column, strict=True)
        ]
    return hashes
