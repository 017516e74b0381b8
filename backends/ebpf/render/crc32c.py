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
        entries[struct.pack("=I", number)] = _table(shift)
        shift = [_shifted(shift, column) for column in shift]
    return entries


def _after_zero_byte(state: int) -> int:
    for _ in range(8):
        state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
    return state


def _shifted(shift: Sequence[int], state: int) -> int:
    """Return what a state becomes; `shift` has what each of its bits becomes."""
    shifted = 0
    for bit in range(_BITS):
        if state >> bit & 1:
            shifted ^= shift[bit]
    return shifted


def _table(shift: Sequence[int]) -> bytes:
    numbers = (
        _shifted(shift, byte << 8 * position) for position in range(4) for byte in range(256)
    )
    return struct.pack("=1024I", *numbers)
