"""Whole flows in the programs' map: all entries of one at once."""

from __future__ import annotations

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

    def last_seen(self, entry: Entry, protocol: int) -> int:
        """Return the latest stamp of all entries of a flow."""
        keys = self.layout.keys(entry, protocol)
        found = [self.find(key, entry.id) for key in keys]
        return max(each.stamp for each in (entry, *found) if each is not None)

    def remove(self, entry: Entry, protocol: int) -> bool:
        """Remove a flow, its client side first; say whether that was there.

        So a flow that the client opens meanwhile finds the ports of this one taken, and loses
        nothing when the rest of this one goes.
        """
        client_side, *others = self.layout.keys(entry, protocol)
        existed = self._remove(client_side, entry.id)
        for key in others:
            self._remove(key, entry.id)
        return existed

    def remove_alone(self, key: bytes, id_: int) -> bool:
        """Remove one entry that has no flow; say whether it was there."""
        return self._remove(key, id_)

    def _remove(self, key: bytes, id_: int) -> bool:
        return self.find(key, id_) is not None and self.entries.delete(key)
