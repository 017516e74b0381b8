"""What the tables say of a CRC is what computing it says."""

import random
import struct

import pytest

from backends.ebpf.render.crc32c import POLYNOMIAL, shift_tables


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 9260, bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def after_zeros(state: int, length: int) -> int:
    """Return what a program computes (crc_after_zeros)."""
    for key, value in shift_tables().items():
        if length >> struct.unpack("=I", key)[0] & 1:
            numbers = struct.unpack("=1024I", value)
            state = (
                numbers[state & 0xFF]
                ^ numbers[256 + (state >> 8 & 0xFF)]
                ^ numbers[512 + (state >> 16 & 0xFF)]
                ^ numbers[768 + (state >> 24)]
            )
    return state


def test_the_checksum_is_that_of_the_rfc():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("length", [4, 5, 12, 13, 255, 256, 1480, 4097])
def test_other_first_bytes_change_the_checksum_by_what_the_tables_say(length):
    random_bytes = random.Random(length).randbytes
    rest, before, after = random_bytes(length - 4), random_bytes(4), random_bytes(4)
    difference = int.from_bytes(before, "little") ^ int.from_bytes(after, "little")

    changed = crc32c(before + rest) ^ after_zeros(difference, length)

    assert changed == crc32c(after + rest)


def test_there_is_a_table_for_each_length_of_a_packet():
    assert [struct.unpack("=I", key)[0] for key in shift_tables()] == list(range(16))
    assert {len(value) for value in shift_tables().values()} == {4096}
    longest, state = 65535, 0x12345678
    expected = state
    for _ in range(longest):
        for _ in range(8):
            expected = expected >> 1 ^ (POLYNOMIAL if expected & 1 else 0)
    assert after_zeros(state, longest) == expected
