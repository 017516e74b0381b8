"""What one family's kernel does not have yet, as far as the metrics tell of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from kproxy.core.addresses import Family
from kproxy.core.objects import ObjectKey

_MOST_TRIGGERS = 10_000  # those of a kernel that refuses for days would fill the memory


class Trigger(NamedTuple):
    """When something happened to a Service's endpoints that an EndpointSlice then told."""

    family: Family
    service: ObjectKey
    at: float  # seconds since the epoch


class Backlog:
    """Changes that wait for one family, and those that a job took along.

    What a refused job took stays here, until a later one has written everything. Of triggers
    only so many are kept, the first ones.
    """

    def __init__(self) -> None:
        self._waiting = (0, 0)
        self._taken = (0, 0)
        self._waiting_triggers: list[float] = []
        self._taken_triggers: list[float] = []

    @property
    def services(self) -> int:
        """How many changes of Services the kernel lacks."""
        return self._waiting[0] + self._taken[0]

    @property
    def slices(self) -> int:
        """How many changes of EndpointSlices the kernel lacks."""
        return self._waiting[1] + self._taken[1]

    def add(self, services: int, slices: int, triggers: Iterable[float]) -> None:
        """Note changes that have to be written."""
        self._waiting = (self._waiting[0] + services, self._waiting[1] + slices)
        room = _MOST_TRIGGERS - len(self._waiting_triggers) - len(self._taken_triggers)
        self._waiting_triggers += itertools.islice(triggers, room)

    def taken(self) -> None:
        """Note that a job takes along all that waits."""
        self._taken = (self.services, self.slices)
        self._waiting = (0, 0)
        self._taken_triggers += self._waiting_triggers
        self._waiting_triggers = []

    def written(self) -> list[float]:
        """Note that the kernel has all that was taken; return its triggers."""
        self._taken = (0, 0)
        triggers, self._taken_triggers = self._taken_triggers, []
        return triggers
