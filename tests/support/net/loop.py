"""The event loop that all sockets of the test network share."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable


class Loop:
    """Calls a function when its socket becomes readable or writable; owns the sockets."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()

    def watch(
        self, sock: socket.socket, then: Callable[[], None], events: int = selectors.EVENT_READ
    ) -> None:
        """Call `then` at each event of the socket, instead of what was called before."""
        if sock in self._selector.get_map():
            self._selector.modify(sock, events, (sock, then))
        else:
            self._selector.register(sock, events, (sock, then))

    def close(self, sock: socket.socket) -> None:
        """Close a socket, watched or not; closing it twice does no harm."""
        if sock.fileno() >= 0:
            if sock in self._selector.get_map():
                self._selector.unregister(sock)
            sock.close()

    def turn(self, timeout_s: float) -> bool:
        """Handle what is ready, waiting for it at most so long; say whether there was anything."""
        ready = self._selector.select(timeout_s)
        for key, _ in ready:
            sock, then = key.data
            if sock.fileno() >= 0:  # not closed by what was just called
                then()
        return bool(ready)

    def shut_down(self) -> None:
        """Close every socket."""
        for key in list(self._selector.get_map().values()):
            sock, _ = key.data
            sock.close()
        self._selector.close()
