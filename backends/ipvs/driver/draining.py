"""Destinations that take no new connections, until they have none left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Protocol

from backends.kernel.virtual_servers import Destination, Load, Server

Pair = tuple[Server, Destination]


class Kernel(Protocol):
    """Who knows what is behind a virtual server."""

    def destinations(self, server: Server) -> Iterable[tuple[Destination, Load]]:
        """Return it, nothing if the server is gone. May raise BackendError."""


class Draining:
    """The destinations of one family that are there for open connections alone."""

    def __init__(self) -> None:
        self._behind: OrderedDict[Server, set[Destination]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._behind.values()))

    def __contains__(self, server: Server) -> bool:
        """Say whether something drains behind a virtual server."""
        return server in self._behind

    def replace(self, pairs: Iterable[Pair]) -> None:
        """Take these for all that drain. Whose turn it is stays as it was."""
        self._behind = OrderedDict((server, set()) for server in self._behind)
        self.add(pairs)
        for server in [server for server, behind in self._behind.items() if not behind]:
            del self._behind[server]

    def add(self, pairs: Iterable[Pair]) -> None:
        """Note that these drain."""
        for server, destination in pairs:
            self._behind.setdefault(server, set()).add(destination)

    def discard(self, pairs: Iterable[Pair]) -> None:
        """Note that these do not, or not any more."""
        for server, destination in pairs:
            behind = self._behind.get(server, set())
            behind.discard(destination)
            if not behind:
                self._behind.pop(server, None)

    def in_turn(self) -> Iterator[Server]:
        """Yield each virtual server behind which something drains, once.

        Whoever stops half-way finds the others first the next time.
        """
        for _ in range(len(self._behind)):
            server = next(iter(self._behind))
            self._behind.move_to_end(server)
            yield server

    def ended(self, kernel: Kernel, server: Server) -> list[Pair]:
        """Return those behind a server that nobody needs any more. May raise BackendError.

        One that the kernel counts as inactive can be half closed, and carry a stream one way for as
        long as it likes. Which can, is not told: so it counts until the kernel forgets it, some
        time after its last packet.
        """
        loads = dict(kernel.destinations(server))
        return [
            (server, each)
            for each in self._behind.get(server, ())
            if (load := loads.get(each)) is None or not (load.active or load.inactive)
        ]
