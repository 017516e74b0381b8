"""Connections that end by a reset."""

from __future__ import annotations

import socket
import struct

_ON_FOR_NO_TIME = struct.pack("ii", 1, 0)


def reset_on_close(connection: socket.socket) -> None:
    """Let a connection be reset when it is closed: neither end keeps a TIME_WAIT."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ON_FOR_NO_TIME)
