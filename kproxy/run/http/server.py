"""An HTTP server with many doors: listeners that share one event loop and one limit."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from kproxy.run.http.connection import Connection, Limits
from kproxy.run.http.message import Handler

log = logging.getLogger(__name__)

_QUEUED = 4096  # connections that wait in the kernel; it lowers this to net.core.somaxconn
_ACCEPTED_PER_TURN = 32  # so that a crowd does not keep the event loop to itself
_SAID_EVERY_S = 60.0


class Listener:
    """One listening socket and the connections that come through it.

    It accepts by itself: asyncio's own server (3.11) neither lets go nor closes a connection that
    it had just accepted when it is closed.
    """

    def __init__(self, server: HttpServer, bound: socket.socket, handler: Handler) -> None:
        """Listen. Raises OSError, and has closed the socket then."""
        self.handler = handler
        self.limits = server.limits
        self.wall_clock = server.wall_clock
        self._server = server
        self._bound = bound
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._through: set[Connection] = set()
        self._closed = False
        try:
            bound.listen(_QUEUED)
        except OSError:
            bound.close()
            raise
        self._loop.add_reader(bound, self._accept)

    def close(self) -> None:
        """Stop listening and cut off whoever is connected. The port is free again at once."""
        self._closed = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._bound)
        self._bound.close()
        for connection in self._through:
            self._server.left(connection)
            connection.abort()
        self._through.clear()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                arrived, _ = self._bound.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                return self._pause(error)
            task = self._loop.create_task(self._admit(arrived))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _admit(self, arrived: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: Connection(self), arrived)

    def _pause(self, error: OSError) -> None:
        """Wait when the kernel has no descriptor or memory left, instead of asking it in a loop."""
        self._server.cannot_accept(error)
        self._loop.remove_reader(self._bound)
        self._resuming = self._loop.call_later(
            self.limits.pause_s, self._loop.add_reader, self._bound, self._accept
        )

    def joined(self, connection: Connection) -> None:
        """Let a connection in; one that was accepted just before we closed goes at once."""
        if self._closed:
            connection.abort()
        else:
            self._through.add(connection)
            self._server.joined(connection)

    def served(self, connection: Connection) -> None:
        """Note that a connection is of use."""
        self._server.served(connection)

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self._through.discard(connection)
        self._server.left(connection)


class HttpServer:
    """Listeners that share `limits`.

    When too many connections are open, the one whose last answer, or else arrival, is longest ago
    is cut off for a new one. So a client that asks at once is served, however many others just sit
    there.
    """

    def __init__(self, limits: Limits, wall_clock: Callable[[], float]) -> None:
        self.limits = limits
        self.wall_clock = wall_clock
        self._open: dict[Connection, None] = {}  # the least recently useful first
        self._may_complain_at = 0.0  # of the event loop's clock

    def listen(self, bound: socket.socket, handler: Handler) -> Listener:
        """Serve a bound socket, and own it from now on. Raises OSError."""
        return Listener(self, bound, handler)

    def joined(self, connection: Connection) -> None:
        """Count a connection in, and cut off the least useful one if there are too many."""
        if len(self._open) >= self.limits.connections:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.abort()
        self._open[connection] = None

    def served(self, connection: Connection) -> None:
        """Make a connection the last to be cut off."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self._open.pop(connection, None)

    def cannot_accept(self, error: OSError) -> None:
        """Say so in the log, for all listeners together once a minute."""
        now = asyncio.get_running_loop().time()
        if now >= self._may_complain_at:
            self._may_complain_at = now + _SAID_EVERY_S
            log.error("connections wait, none can be accepted: %s; trying again", error.strerror)
