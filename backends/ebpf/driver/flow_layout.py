"""Entries of the programs' map of flows, as bytes: ebpf/include/kproxy/flow.h has the layout."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

TICK_NS = 1 << 28
"""The unit of stamps, which count CLOCK_MONOTONIC."""

_STATE, _STAMP, _CLIENT = 0, 8, 32  # offsets in an entry
_KEY_WORDS = 8  # bytes of a key besides its two addresses


class Side(enum.IntEnum):
    """Which view of a flow an entry is found by."""

    CLIENT = 0
    STACK = 1
    ENDPOINT = 2


class FlowFlag(enum.IntFlag):
    """What other entries a flow has, and who translates it."""

    MASQUERADED = 1
    AT_ONCE = 2
    KERNELS = 4
    TRACKED = 8


class State(enum.IntFlag):
    """What a flow went through; complete on its client side."""

    REPLIED = 1
    ACKNOWLEDGED = 2
    FIN_FORWARD = 4
    FIN_REVERSE = 8
    RESET = 16


STATES = 32
"""States are below this."""


class End(NamedTuple):
    """An address and a port, in network order."""

    address: bytes
    port: bytes


class Entry(NamedTuple):
    """What one entry says."""

    state: int
    stamp: int
    id: int
    client: End
    frontend: End
    endpoint: End
    node: End
    stack_port: bytes
    side: int
    flags: int


class Layout:
    """The layout of one family; `wide` is the size of an address in bytes."""

    def __init__(self, wide: int) -> None:
        self.key_bytes = 2 * wide + _KEY_WORDS
        self._flow = struct.Struct(f"=QII4I{wide}s{wide}s{wide}s{wide}s2s2s2s2s2sBBI")
        self._key = struct.Struct(f"={wide}s{wide}s2s2sB3x")
        self._protocol = 2 * wide + 4
        self._frontend = _CLIENT + wide
        self._frontend_port = _CLIENT + 4 * wide + 2
        self._side = _CLIENT + 4 * wide + 10
        self.wide = wide
        self.entry_bytes = self._flow.size

    def columns(
        self, keys: bytearray, values: bytearray
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield stamp, state, side, flags and protocol of many entries, in their order."""
        words = memoryview(values).cast("I")
        step = self.entry_bytes // 4
        return zip(
            words[_STAMP // 4 :: step].tolist(),
            words[_STATE // 4 :: step].tolist(),
            memoryview(values)[self._side :: self.entry_bytes].tolist(),
            memoryview(values)[self._side + 1 :: self.entry_bytes].tolist(),
            memoryview(keys)[self._protocol :: self.key_bytes].tolist(),
            strict=True,
        )

    def clients(self, values: bytearray) -> Iterator[bytes]:
        """Yield the addresses of the clients of many entries."""
        for start in range(_CLIENT, len(values), self.entry_bytes):
            yield bytes(values[start : start + self.wide])

    def entry(self, values: bytes | bytearray, number: int = 0) -> Entry:
        """Decode one of many entries."""
        fields = self._flow.unpack_from(values, number * self.entry_bytes)
        state, stamp, id_, _, _, _, _, client, frontend, endpoint, node, *rest = fields
        client_port, frontend_port, endpoint_port, node_port, stack_port, side, flags, _ = rest
        return Entry(
            state,
            stamp,
            id_,
            End(client, client_port),
            End(frontend, frontend_port),
            End(endpoint, endpoint_port),
            End(node, node_port),
            stack_port,
            side,
            flags,
        )

    def encode(self, entry: Entry) -> bytes:
        """Encode an entry."""
        ends = (entry.client, entry.frontend, entry.endpoint, entry.node)
        return self._flow.pack(
            *(entry.state, entry.stamp, entry.id, 0, 0, 0, 0),
            *(end.address for end in ends),
            *(end.port for end in ends),
            *(entry.stack_port, entry.side, entry.flags, 0),
        )

    def frontend(self, values: bytearray, number: int) -> End:
        """Return the frontend of one of many entries."""
        start = number * self.entry_bytes
        address, port = start + self._frontend, start + self._frontend_port
        return End(bytes(values[address : address + self.wide]), bytes(values[port : port + 2]))

    def key(self, one: End, other: End, protocol: int) -> bytes:
        """Return the key that packets between these two have, whichever way they go."""
        low, high = sorted((one, other), key=_order)
        return self._key.pack(low.address, high.address, low.port, high.port, protocol)

    def key_of(self, keys: bytearray, number: int) -> bytes:
        """Return one of many keys."""
        return bytes(keys[number * self.key_bytes : (number + 1) * self.key_bytes])

    def protocol(self, key: bytes) -> int:
        """Return the protocol in a key."""
        return key[self._protocol]

    def keys(self, entry: Entry, protocol: int) -> list[bytes]:
        """Return the keys of all entries of a flow, that of its client side first."""
        keys = [self.key(entry.client, entry.frontend, protocol)]
        if not entry.flags & (FlowFlag.AT_ONCE | FlowFlag.KERNELS):
            stack = End(entry.client.address, entry.stack_port)
            keys.append(self.key(stack, entry.endpoint, protocol))
        if entry.flags & (FlowFlag.AT_ONCE | FlowFlag.MASQUERADED):
            keys.append(self.key(entry.node, entry.endpoint, protocol))
        return keys


LAYOUTS = {layout.key_bytes: layout for layout in (Layout(4), Layout(16))}
"""By the size of a key."""


def _order(end: End) -> tuple[tuple[int, ...], int]:
    """Order ends as programs do, which compare words as the machine loads them."""
    words = struct.unpack(f"={len(end.address) // 4}I", end.address)
    return words, int(struct.unpack("=H", end.port)[0])
