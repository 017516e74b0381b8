"""A packet to send, and what can become of it."""

from __future__ import annotations

from dataclasses import dataclass

from kproxy.core.addresses import endpoint_text
from kproxy.core.objects import Protocol


@dataclass(frozen=True, slots=True)
class Probe:
    """The first packet of a connection, sent from the machine that has the address `source`."""

    source: str
    destination: str
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        to = endpoint_text(self.destination, self.port)
        return f"{self.source} -> {to} {self.protocol.value}"


@dataclass(frozen=True, slots=True)
class Answered:
    """A machine answered: its address and port ("ip:port"), and the source that it saw."""

    by: str
    place: str
    source: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The sender was told at once: by a reset, or by an ICMP port unreachable."""


@dataclass(frozen=True, slots=True)
class Left:
    """The packet went to the outside with its own destination; `source` is what it bore."""

    source: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing came back. `arrived`: the packet reached the node, or was made there."""

    arrived: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The sender got an error that is none of the above."""

    error: str


Observed = Answered | Refused | Left | Silent | Failed
