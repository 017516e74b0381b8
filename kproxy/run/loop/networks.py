"""Which networks this host is directly connected to, followed while interfaces come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from kproxy.core.addresses import Network
from kproxy.core.store import Change, Connected
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_PAUSE_S = 0.1  # between two looks: a pod that starts may tell of several addresses
_RETRY_S = 5.0


class NetworkEvents(Protocol):
    """Tells that addresses came or went: `fileno` is readable then."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def drain(self) -> None:
        """Take what has been told. Raises BackendError."""

    def close(self) -> None:
        """Stop listening."""


class HostNetworks:
    """Tells of the networks whenever they differ from what was known last.

    - `read` returns them; it runs in a thread and may raise BackendError.
    - `listen` opens the events; it may raise BackendError.
    - `tell` takes the change.
    """

    def __init__(
        self,
        read: Callable[[], frozenset[Network]],
        listen: Callable[[], NetworkEvents],
        tell: Callable[[tuple[Change, ...]], None],
        *,
        known: frozenset[Network],
        pause_s: float = _PAUSE_S,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._read = read
        self._listen = listen
        self._tell = tell
        self._pause_s = pause_s
        self._retry_s = retry_s
        self._known = known
        self._failure = ""

    async def run(self) -> None:
        """Follow the networks until cancelled."""
        while True:
            try:
                with contextlib.closing(self._listen()) as events:
                    await self._follow(events)
            except BackendError as error:
                if str(error) != self._failure:
                    self._failure = str(error)
                    log.error("%s; the networks that were last known count", error)
                await asyncio.sleep(self._retry_s)

    async def _follow(self, events: NetworkEvents) -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        loop.add_reader(events, told.set)
        try:
            while True:
                told.clear()
                events.drain()
                self._note(await asyncio.to_thread(self._read))
                self._failure = ""
                await told.wait()
                await asyncio.sleep(self._pause_s)
        finally:
            loop.remove_reader(events)

    def _note(self, networks: frozenset[Network]) -> None:
        if networks != self._known:
            self._known = networks
            self._tell((Connected(networks),))
