"""HTTP requests as they go over the wire, and answers as they come back."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tests.support.cluster.place import Place
from tests.support.net import plan
from tests.support.waiting import LONGEST_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent, headers in its order."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: str

    def header(self, name: str) -> str:
        """Return the value of one header, empty if it is not there."""
        return dict(self.headers).get(name, "")


def ask(place: Place, port: int, path: str, *, method: str = "GET", more: str = "") -> Answer:
    """Send one request to the node's own port; `more` are header lines, each with its CRLF."""
    head = f"{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{more}"
    with place.node.network.node.entered():
        connection = socket.create_connection((plan.LOOPBACK, port), LONGEST_S)
    with connection:
        connection.sendall(f"{head}\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    top, _, body = received.partition("\r\n\r\n")
    status, *lines = top.split("\r\n")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    if ("Transfer-Encoding", "chunked") in headers:
        body = _unchunked(body)
    return Answer(status, headers, body)


def _unchunked(body: str) -> str:
    pieces, rest = [], body.encode()
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        rest = rest[length + 2 :] if length else b""
    return b"".join(pieces).decode()
