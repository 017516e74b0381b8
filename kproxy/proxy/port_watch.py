"""Ports of this node that a Service takes from whoever listens there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Protocol
from kproxy.core.occupied import Occupant
from kproxy.core.table import NodePort, TableChanges

_PAUSE_S = 1.0  # between two looks
_PERIOD_S = 60.0  # a program may begin to listen at any time


class PortWatch:
    """Keeps the compiler informed of who listens on this node.

    - `listening` looks; it runs in a thread.
    - `looked` is called in the event loop after each look.
    """

    def __init__(
        self,
        compiler: Compiler,
        listening: Callable[[], frozenset[Occupant]],
        looked: Callable[[], None],
        *,
        pause_s: float = _PAUSE_S,
        period_s: float = _PERIOD_S,
    ) -> None:
        self._compiler = compiler
        self._listening = listening
        self._looked = looked
        self._pause_s = pause_s
        self._period_s = period_s
        self._node_ports: set[tuple[Protocol, int]] = set()
        self._wake = asyncio.Event()

    def compiled(self, changed: Mapping[Family, TableChanges]) -> None:
        """Look soon if there is a NodePort that there was not before."""
        for changes in changed.values():
            for key, entry in changes.service_ports.items():
                for frontend in entry.frontends if entry else ():
                    port = key.protocol, frontend.port
                    if isinstance(frontend, NodePort) and port not in self._node_ports:
                        self._node_ports.add(port)
                        self._wake.set()

    async def run(self) -> None:
        """Look whenever there is reason to, and from time to time, until cancelled."""
        await self._wake.wait()  # without a NodePort nobody loses anything
        while True:
            self._wake.clear()
            self._take(await asyncio.to_thread(self._listening))
            await asyncio.sleep(self._pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._wake.wait()

    def look(self) -> None:
        """Look once, where nothing else is going on."""
        self._take(self._listening())

    def _take(self, found: frozenset[Occupant]) -> None:
        self._compiler.listening(found)
        self._looked()
