"""Whole flows in the programs' map: all entries of one at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.ebpf.driver.flow_layout import LAYOUTS, Entry
from backends.kernel.bpf.maps import Map


class FlowMap:
    """The map of flows of one family. Any call may raise BackendError."""

    def __init__(self, entries: Map) -> None:
        self.entries = entries
        self.layout = LAYOUTS[entries.shape.key_size]

    def find(self, key: bytes, id_: int) -> Entry | None:
        """Return an entry of that very flow, None where it is gone or another one's by now."""
        value = self.entries.lookup(key)
        entry = None if value is None else self.layout.entry(value)
        return entry if entry is not None and entry.id == id_ else None

    def whole(self, entry: Entry, protocol: int) -> dict[bytes, Entry]:
        """Return all entries of a flow as they are now, by key; its client side first."""
        found = {}
        for key in self.layout.keys(entry, protocol):
            now = self.find(key, entry.id)
            if now is not None:
                found[key] = now
        return found

    def remove(self, whole: Iterable[bytes]) -> bool:
        """Remove the entries of a flow, in their order; say whether any was there.

        While its client side goes first, a flow that the client opens meanwhile finds the ports of
        this one taken, and loses nothing when the rest of this one goes.
        """
        return any([self.entries.delete(key) for key in whole])

    def remove_silent(self, whole: Mapping[bytes, Entry]) -> bool:
        """Remove the entries of a flow as `remove` does; but not where its first was met meanwhile.

        From the port of a connection that is over the client may open the next one at any moment.
        """
        key, *others = whole
        value = self.entries.take(key)
        if value is not None:
            was, now = whole[key], self.layout.entry(value)
            if (now.id, now.stamp) != (was.id, was.stamp):
                self.entries.put_back(key, value)
                return False
        return self.remove(others) or value is not None
