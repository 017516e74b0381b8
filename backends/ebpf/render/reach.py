"""Which addresses and networks packets of these entries may be for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backends.ebpf.render.layout import Layout, TableMap, Unclaimed
from kproxy.core.image import Key

_FRONTENDS, _CHUNKS = TableMap.FRONTENDS.value, TableMap.CHUNKS.value
_UNCLAIMED = TableMap.UNCLAIMED_NETWORKS.value
_DROPPED = bytes([Unclaimed.DROP])


def frontends(layout: Layout, entries: Mapping[Key, bytes]) -> set[bytes]:
    """Return the addresses of frontends, in network order. NodePorts have none of their own."""
    wide = len(layout.unspecified)
    found = {
        key[1 : 1 + wide] for key in entries if key[0] == _FRONTENDS and isinstance(key, bytes)
    }
    found.discard(layout.unspecified)
    return found


def endpoints(layout: Layout, entries: Mapping[Key, bytes]) -> set[bytes]:
    """Return the addresses of targets, in network order. The rest of a last chunk has none."""
    wide, size = len(layout.unspecified), layout.target.size
    found: set[bytes] = set()
    for key, value in entries.items():
        if key[0] == _CHUNKS:
            found.update([value[at : at + wide] for at in range(0, len(value), size)])
    found.discard(layout.unspecified)
    return found


def dropped_networks(layout: Layout, entries: Mapping[Key, bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the networks whose unclaimed addresses are dropped, as addresses and lengths."""
    for key, value in entries.items():
        if key[0] == _UNCLAIMED and isinstance(key, bytes) and value == _DROPPED:
            bits, address = layout.network_key.unpack(key[1:])
            yield address, bits
