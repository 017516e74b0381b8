"""Ports of this machine that are ours also while nobody listens there."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
_EVERYWHERE = "::"


def keep(port: int = 0, *, host: str = LOOPBACK) -> socket.socket:
    """Return a socket that keeps a port ours until it is closed; 0 takes any. Raises OSError.

    Nobody else finds the port free, and who connects to it is refused, until somebody listens who
    has set SO_REUSEADDR as servers do. `::` is every address of both families.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family)
    try:
        if host == _EVERYWHERE:
            place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        place.bind((host, port))
    except BaseException:
        place.close()
        raise
    # Not before: it would share the port with others who keep it like this.
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return place


def keep_any_of(ports: Sequence[int]) -> socket.socket:
    """Return a socket that keeps one of these ports, whichever is free."""
    # Not by the shared generator: runs with the same seed would all try the same ports.
    for port in random.SystemRandom().sample(ports, len(ports)):
        try:
            return keep(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "every port is taken", LOOPBACK)


def listening(port: int) -> socket.socket:
    """Return a socket that asyncio can listen by at a port of ours. Raises OSError.

    Connections hand on what is written at once: asyncio sets TCP_NODELAY only where the protocol is
    named, and without it each write may wait for the peer's delayed acknowledgement, 40 ms.
    """
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except BaseException:
        listener.close()
        raise
    return listener


def port_of(place: socket.socket) -> int:
    """Return the port that a socket keeps."""
    port: int = place.getsockname()[1]
    return port
