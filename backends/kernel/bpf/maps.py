"""Maps: one entry at a time, and many at once. Keys and values are bytes as the kernel has them."""

from __future__ import annotations

import errno
import functools
import struct
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from backends.kernel.bpf import btf, objects
from backends.kernel.bpf.syscall import (
    ENOTSUPP,
    Command,
    Descriptor,
    KernelRefusal,
    address,
    bpf,
    demand,
)

NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC: memory for an entry is taken when it comes."""

_CREATE = struct.Struct("=5I8x16s4x3I4xQ")
_ELEMENT = struct.Struct("=I4xQQQ")  # map, key, value or next key, flags
_BATCH = struct.Struct("=QQQQIIQQ")  # tokens in and out, keys, values, count, map, flags
_COUNT_AT = 32
_NO_EXIST = 1  # BPF_NOEXIST
_NAME_CHARACTERS = 15
_AT_ONCE = 4096
_NO_BATCHES = {ENOTSUPP, errno.EOPNOTSUPP}
_POSSIBLE = Path("/sys/devices/system/cpu/possible")


class MapType(IntEnum):
    """enum bpf_map_type: those with a meaning of their own here."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    SK_STORAGE = 24
    RINGBUF = 27


class Shape(NamedTuple):
    """What cannot be altered of a map. Sizes are in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class BatchRefusal(KernelRefusal):
    """The kernel took some of many entries: the first `applied` of them, and not the next."""

    def __init__(self, doing: str, number: int, applied: int) -> None:
        super().__init__(doing, number, f"after {applied} entries")
        self.applied = applied


class Map(Descriptor):
    """A map of the kernel."""

    def __init__(self, fd: int, name: str, shape: Shape) -> None:
        super().__init__(fd)
        self.name = name
        self.shape = shape
        self._value_bytes = shape.value_size
        if shape.type == MapType.PERCPU_ARRAY:
            self._value_bytes = (shape.value_size + 7 & ~7) * possible_cpus()

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, of all CPUs one after the other if each has its own."""
        return self._value(Command.MAP_LOOKUP, key, "reading")

    def update(self, key: bytes, value: bytes) -> None:
        """Write an entry. Raises KernelRefusal: E2BIG where the map is full."""
        _, number = self._element(Command.MAP_UPDATE, key, value)
        self._check(number, "writing")

    def delete(self, key: bytes) -> bool:
        """Remove an entry; say whether it was there."""
        _, number = self._element(Command.MAP_DELETE, key, None)
        if number == errno.ENOENT:
            return False
        self._check(number, "deleting")
        return True

    def take(self, key: bytes) -> bytes | None:
        """Remove an entry of a hash and return its value as it was at that moment."""
        return self._value(Command.MAP_LOOKUP_AND_DELETE, key, "taking from")

    def put_back(self, key: bytes, value: bytes) -> bool:
        """Write an entry if there is none by now; say whether it was written."""
        _, number = self._element(Command.MAP_UPDATE, key, value, _NO_EXIST)
        if number == errno.EEXIST:
            return False
        self._check(number, "writing")
        return True

    def update_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Write many entries, in their order. Raises BatchRefusal."""
        keys, values = list(entries.keys()), list(entries.values())
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            content = b"".join(values[start : start + _AT_ONCE])
            done, number = self._batch(Command.MAP_UPDATE_BATCH, part, content)
            if number in _NO_BATCHES:
                done, number = self._one_by_one(entries, part)
            if number:
                raise BatchRefusal(f"writing the map {self.name}", number, start + done)

    def delete_many(self, keys: Collection[bytes]) -> int:
        """Remove many entries; return how many of them were there."""
        left, removed = list(keys), 0
        while left:
            part = left[:_AT_ONCE]
            done, number = self._batch(Command.MAP_DELETE_BATCH, part, b"")
            if number in _NO_BATCHES:
                removed += sum(self.delete(key) for key in part)
                left = left[len(part) :]
                continue
            removed += done
            if number == errno.ENOENT:
                done += 1  # this one is gone already
            else:
                self._check(number, "deleting from")
            left = left[done:]
        return removed

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all entries, those that come or go meanwhile perhaps."""
        for part in self.parts():
            yield from part

    def parts(self, at_once: int = _AT_ONCE) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield all entries in parts of about `at_once`, each read when it is asked for."""
        wide, size = self.shape.key_size, self._value_bytes
        for keys, values in self.raw_parts(at_once):
            yield [
                (bytes(keys[at : at + wide]), bytes(values[start : start + size]))
                for at, start in zip(
                    range(0, len(keys), wide), range(0, len(values), size), strict=True
                )
            ]

    def raw_parts(self, at_once: int = _AT_ONCE) -> Iterator[tuple[bytearray, bytearray]]:
        """Yield keys and values in a row, as `parts` does: no object for each of many entries."""
        at_once = min(at_once, self.shape.max_entries + 1)  # one more: it tells that this is all
        token_bytes = max(self.shape.key_size, 4)
        before, after = bytearray(token_bytes), bytearray(token_bytes)
        started = False
        while True:
            keys = bytearray(self.shape.key_size * at_once)
            values = bytearray(self._value_bytes * at_once)
            attributes = bytearray(
                _BATCH.pack(
                    *(address(before) if started else 0, address(after)),
                    *(address(keys), address(values), at_once, self._fd, 0, 0),
                )
            )
            _, number = bpf(Command.MAP_LOOKUP_BATCH, attributes)
            if number == errno.ENOSPC:  # a bucket of the hash has more entries than this
                at_once *= 2
                continue
            if number in _NO_BATCHES and not started:
                yield from self._parts_one_by_one(at_once)
                return
            if number != errno.ENOENT:
                self._check(number, "reading")
            count = _count(attributes)
            yield keys[: count * self.shape.key_size], values[: count * self._value_bytes]
            if number == errno.ENOENT:
                return
            before, after, started = after, before, True

    def keys(self) -> Iterator[bytes]:
        """Yield the keys, one call each; begins anew if the last one was deleted meanwhile."""
        key: bytes | None = None
        while True:
            following = bytearray(self.shape.key_size)
            _, number = self._element(Command.MAP_NEXT_KEY, key, following)
            if number == errno.ENOENT:
                return
            self._check(number, "reading")
            key = bytes(following)
            yield key

    def _parts_one_by_one(self, at_once: int) -> Iterator[tuple[bytearray, bytearray]]:
        keys, values = bytearray(), bytearray()
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                keys += key
                values += value
            if len(keys) == at_once * self.shape.key_size:
                yield keys, values
                keys, values = bytearray(), bytearray()
        yield keys, values

    def _one_by_one(self, entries: Mapping[bytes, bytes], keys: Sequence[bytes]) -> tuple[int, int]:
        for done, key in enumerate(keys):
            _, number = self._element(Command.MAP_UPDATE, key, entries[key])
            if number:
                return done, number
        return len(keys), 0

    def _batch(self, command: Command, keys: Sequence[bytes], values: bytes) -> tuple[int, int]:
        """Return how many entries the kernel took, and the errno of the next one."""
        joined = b"".join(keys)
        if len(joined) != self.shape.key_size * len(keys):
            raise ValueError(f"the keys of {self.name} have {self.shape.key_size} bytes each")
        if values and len(values) != self._value_bytes * len(keys):
            raise ValueError(f"the values of {self.name} have {self._value_bytes} bytes each")
        attributes = bytearray(
            _BATCH.pack(0, 0, address(joined), address(values), len(keys), self._fd, 0, 0)
        )
        _, number = bpf(command, attributes)
        done = _count(attributes)
        if number and done == len(keys):
            done = 0  # it did not begin, and left the count as we asked for it
        return done, number

    def _value(self, command: Command, key: bytes, verb: str) -> bytes | None:
        value = bytearray(self._value_bytes)
        _, number = self._element(command, key, value)
        if number == errno.ENOENT:
            return None
        self._check(number, verb)
        return bytes(value)

    def _element(
        self,
        command: Command,
        key: bytes | None,
        value: bytes | bytearray | None,
        flags: int = 0,
    ) -> tuple[int, int]:
        if key is not None and len(key) != self.shape.key_size:
            raise ValueError(f"a key of {self.name} has {self.shape.key_size} bytes: {key!r}")
        if command == Command.MAP_UPDATE and len(value or b"") != self._value_bytes:
            raise ValueError(f"a value of {self.name} has {self._value_bytes} bytes: {value!r}")
        attributes = _ELEMENT.pack(
            self._fd,
            0 if key is None else address(key),
            0 if value is None else address(value),
            flags,
        )
        return bpf(command, bytearray(attributes))

    def _check(self, number: int, verb: str) -> None:
        if number:
            raise KernelRefusal(f"{verb} the map {self.name}", number)


def create(name: str, shape: Shape) -> Map:
    """Create a map, with an eye to what the kernel demands of its type. Raises KernelRefusal."""
    doing = f"creating the map {name} of {shape.max_entries} entries"
    if shape.type == MapType.SK_STORAGE:
        with btf.load(shape.value_size) as types:
            fd = _create(name, shape, doing, types.fileno(), btf.KEY_TYPE, btf.VALUE_TYPE)
    else:
        fd = _create(name, shape, doing)
    return Map(fd, name, shape)


def _create(name: str, shape: Shape, doing: str, *types: int) -> int:
    short = name.encode()[:_NAME_CHARACTERS]
    attributes = _CREATE.pack(*shape, short, *(types or (0, 0, 0)), 0)
    return demand(Command.MAP_CREATE, bytearray(attributes), doing)


def shape_of(descriptor: Descriptor) -> Shape:
    """Return what the kernel says of a map."""
    return Shape(*struct.unpack_from("=I4x4I", objects.info(descriptor, "a map")))


def pinned(path: Path) -> Map:
    """Open a map by its pin. Raises KernelRefusal: ENOENT where there is none."""
    descriptor = objects.get(path)
    try:
        return Map(descriptor.fileno(), path.name, shape_of(descriptor))
    except BaseException:
        descriptor.close()
        raise


@functools.cache
def possible_cpus() -> int:
    """Return for how many CPUs a map keeps values: those that may be there one day count."""
    return count_cpus(_POSSIBLE.read_text())


def count_cpus(ranges: str) -> int:
    """Return how many CPUs the kernel lists, as in 0-3,8."""
    bounds = [part.partition("-") for part in ranges.strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)


def _count(attributes: bytearray) -> int:
    return int.from_bytes(attributes[_COUNT_AT : _COUNT_AT + 4], sys.byteorder)
