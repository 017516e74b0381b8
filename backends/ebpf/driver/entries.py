"""The entries of a map that one process alone writes."""

from __future__ import annotations

from collections.abc import Mapping

from backends.kernel.bpf.maps import Map


class Entries:
    """What a map shall hold: nothing at first. Any call may raise BackendError.

    What a refusal left undone, and what others did to the map, the next `audit` mends.
    """

    def __init__(self, kernel_map: Map) -> None:
        self._map = kernel_map
        self._wanted: dict[bytes, bytes] = {}

    def put(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Write entries, and remove those whose value is None, as far as they differ."""
        new, gone = {}, []
        for key, value in changes.items():
            if value is None:
                if self._wanted.pop(key, None) is not None:
                    gone.append(key)
            elif self._wanted.get(key) != value:
                self._wanted[key] = new[key] = value
        if new:
            self._map.update_many(new)
        if gone:
            self._map.delete_many(gone)

    def audit(self) -> int:
        """Make the map hold what it shall, whatever is in it; return how many entries differed."""
        found = dict(self._map.items())
        wrong = {key: value for key, value in self._wanted.items() if found.get(key) != value}
        foreign = found.keys() - self._wanted.keys()
        if wrong:
            self._map.update_many(wrong)
        if foreign:
            self._map.delete_many(foreign)
        return len(wrong) + len(foreign)
