"""Tables by which a program changes SCTP's CRC32c where ports change (kproxy/sctp.h)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence

POLYNOMIAL = 0x82F63B78
"""Of RFC 9260, appendix A, with the lowest bit first."""

_SHIFTS = 16  # lengths below 2^16 bytes
_BITS = 32


@functools.cache
def shift_tables() -> Mapping[bytes, bytes]:
    """Return the entries of the map `crc_shifts`: key n takes a CRC's state over 2^n zero bytes.

    A value has 4 times 256 numbers: what each byte of the state adds to the new
    one, the lowest byte first.
    """
    shift = [_after_zero_byte(1 << bit) for bit in range(_BITS)]
    entries = {}
    for number in range(_SHIFTS):
        table = _table(shift)
        entries[struct.pack("=I", number)] = struct.pack("=1024I", *table)
        shift = [_shifted(table, state) for state in shift]
    return entries


def _after_zero_byte(state: int) -> int:
    for _ in range(8):
        state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
    return state


def _table(shift: Sequence[int]) -> list[int]:
    """Return what each byte of a state becomes; `shift` has what each of its bits becomes."""
    numbers = []
    for position in range(4):
        of_byte = [0]
        for bit in range(8):
            of_byte += [number ^ shift[8 * position + bit] for number in of_byte]
        numbers += of_byte
    return numbers


def _shifted(table: Sequence[int], state: int) -> int:
    """Return what a state becomes."""
    shifted = 0
    for position in range(4):
        shifted ^= table[256 * position + (state >> 8 * position & 0xFF)]
    return shifted
