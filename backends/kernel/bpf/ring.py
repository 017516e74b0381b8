"""The reading end of a ring buffer that programs write to. Layout: kernel/bpf/ringbuf.c."""

from __future__ import annotations

import mmap
import struct

from backends.kernel.bpf.maps import Map

_POSITION = struct.Struct("Q")  # native, so that it is read and written in one piece
_HEADER = struct.Struct("=II")
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class RingBuffer:
    """What programs report, in their order; one process reads it.

    Its map's descriptor is readable (epoll) when there is something.
    """

    def __init__(self, ring: Map) -> None:
        self._ring = ring
        self._size = ring.shape.max_entries
        fd, page = ring.fileno(), mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The data is mapped twice in a row, so that a record is never in two pieces.
        self._producer = mmap.mmap(
            fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._ring.fileno()

    def read(self, most: int) -> list[bytes]:
        """Return the next records, at most so many, and make room for others."""
        records: list[bytes] = []
        (at,) = _POSITION.unpack_from(self._consumer)
        (end,) = _POSITION.unpack_from(self._producer)
        while at < end and len(records) < most:
            start = mmap.PAGESIZE + at % self._size
            header, _ = _HEADER.unpack_from(self._producer, start)
            if header & _BUSY:
                break  # a program is about to finish it, and will wake us
            length = header & ~(_BUSY | _DISCARDED)
            if not header & _DISCARDED:
                content = start + _HEADER.size
                records.append(self._producer[content : content + length])
            at += _HEADER.size + length + 7 & ~7
        _POSITION.pack_into(self._consumer, 0, at)
        return records

    def close(self) -> None:
        """Let go of the memory; the map stays."""
        self._consumer.close()
        self._producer.close()
