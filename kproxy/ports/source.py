"""What a source of API objects offers, whether it is a cluster or a folder."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from kproxy.core.objects import Kind
from kproxy.core.store import Change

WITHOUT_NODE = (
    "zone hints are not used, nodePortAddresses `primary` matches every address, and "
    "detectLocalMode NodeCIDR finds no local pods"
)
"""What it means that a source has no Node object of this node, or one without an address."""


class SourceState(enum.Enum):
    """How the source of one kind is doing."""

    STARTING = "starting"  # not listed yet
    FOLLOWING = "following"  # what we hold is what the source has
    FAILING = "failing"  # out of touch; what was last heard stays in force
    OFF = "off"  # the source does not have this kind, or does not let us see it


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One kind at one moment.

    - `since`: when this state began, in seconds since the epoch.
    - `detail`: the last failure as one line, empty if there is none.
    - `lists`, `reconnects`: complete lists taken, and streams that had to be opened again.
    - `refused`: objects now left out because they are invalid.
    """

    kind: Kind
    state: SourceState
    since: float
    detail: str = ""
    lists: int = 0
    reconnects: int = 0
    refused: int = 0


class Source(Protocol):
    """Delivers objects and what changes of them."""

    def batches(self) -> AsyncIterator[tuple[Change, ...]]:
        """Yield changes without end; the first batches list each kind completely (Replaced)."""

    def status(self) -> tuple[SourceStatus, ...]:
        """Return how each kind is doing. May be asked from any thread."""
