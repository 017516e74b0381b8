"""What of maps and rings needs no kernel to be seen."""

import os
import struct

import pytest

from backends.kernel.bpf.maps import Map, MapType, Shape, count_cpus
from backends.kernel.bpf.ring import RingBuffer

PAGE = os.sysconf("SC_PAGESIZE")
BUSY, DISCARDED = 1 << 31, 1 << 30


@pytest.mark.parametrize(
    ("ranges", "count"), [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11\n", 7), ("0,2\n", 2)]
)
def test_the_cpus_of_a_list_are_counted(ranges, count):
    assert count_cpus(ranges) == count


@pytest.fixture
def memory():
    """A ring as the kernel lays it out: both positions, each in a page, and twice the data."""
    fd = os.memfd_create("ring")
    os.truncate(fd, 4 * PAGE)
    ring = RingBuffer(Map(fd, "events", Shape(MapType.RINGBUF, 0, 0, PAGE, 0)))
    yield fd, ring
    ring.close()
    os.close(fd)


def write(fd, *records):
    """Write what programs reserved: flags and content."""
    at = 0
    for flags, content in records:
        record = struct.pack("=II", len(content) | flags, 0) + content
        os.pwrite(fd, record, 2 * PAGE + at)
        at += len(record) + 7 & ~7
    os.pwrite(fd, struct.pack("Q", at), PAGE)


def test_a_record_that_is_being_written_is_waited_for_with_what_follows(memory):
    fd, ring = memory
    write(fd, (0, b"first"), (BUSY, b"second"), (0, b"third"))
    assert ring.read(10) == [b"first"]
    assert ring.read(10) == []

    write(fd, (0, b"first"), (0, b"second"), (0, b"third"))
    assert ring.read(10) == [b"second", b"third"]


def test_a_record_that_was_given_up_is_passed_over(memory):
    fd, ring = memory
    write(fd, (DISCARDED, b"first"), (0, b"second"), (DISCARDED, b"third"))
    assert ring.read(10) == [b"second"]
    assert struct.unpack("Q", os.pread(fd, 8, 0)) == struct.unpack("Q", os.pread(fd, 8, PAGE))
