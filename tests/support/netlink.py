"""What a kernel may say over netlink, played from a script."""

from __future__ import annotations

import struct
from collections.abc import Iterable

ERROR, DONE, INTERRUPTED = 2, 3, 0x10

SOCKET = "backends.kernel.netlink.socket.socket"
"""What a script takes the place of."""


def message(kind: int, sequence: int = 1, *, flags: int = 0, status: int = 0) -> bytes:
    """Return a message that ends a dump, or answers a request."""
    return struct.pack("=IHHIIi", 20, kind, flags, sequence, 0, status)


def attribute(kind: int, *parts: bytes) -> bytes:
    """Return one attribute, padded; several parts are nested attributes."""
    content = b"".join(parts)
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


class Script:
    """Stands for the socket: gives the scripted answers, and fails when there are none left."""

    def __init__(self, answers: Iterable[bytes]) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    def __call__(self, family: int, kind: int, protocol: int) -> Script:
        return self

    def settimeout(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)
