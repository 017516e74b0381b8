"""Devices that wait for their turn, those that most depends on first."""

from __future__ import annotations

import heapq

Rank = tuple[int, int]


class Waiting:
    """A queue without repeats; a device that is added again keeps its turn."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int]] = []
        self._devices: set[int] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, device: int, rank: Rank) -> None:
        """Let a device wait."""
        if device not in self._devices:
            self._devices.add(device)
            heapq.heappush(self._heap, (rank, device))

    def pop(self) -> int:
        """Return the device whose turn it is."""
        _, device = heapq.heappop(self._heap)
        self._devices.remove(device)
        return device

    def first(self) -> Rank | None:
        """Return the rank of the device whose turn it is, if any waits."""
        return self._heap[0][0] if self._heap else None
