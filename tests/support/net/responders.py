"""Servers that answer every first packet with who they are and whom they saw."""

from __future__ import annotations

import json
import socket

from kproxy.core.addresses import Family, endpoint_text
from tests.support.net.ancillary import ask_for_destination, destination_of, drained, from_address
from tests.support.net.loop import Loop
from tests.support.net.observed import Answered

FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_ANCILLARY_BYTES = 256
_LARGEST_PACKET = 65536


def encode_answer(answer: Answered) -> bytes:
    """Return an answer as it travels."""
    return json.dumps({"by": answer.by, "place": answer.place, "source": answer.source}).encode()


def decode_answer(message: bytes) -> Answered:
    """Return the answer in a message."""
    return Answered(**json.loads(message))


class Responder:
    """Answers on one port of one namespace over one family, by TCP and UDP.

    Made inside the namespace, and registered in the loop.
    """

    def __init__(self, loop: Loop, *, place: str, family: Family, port: int) -> None:
        self._loop = loop
        self._place = place
        self._stream = _bound(FAMILIES[family], socket.SOCK_STREAM, port)
        self._stream.listen(4096)
        self._datagram = _bound(FAMILIES[family], socket.SOCK_DGRAM, port)
        ask_for_destination(self._datagram)
        self._port = port
        loop.watch(self._stream, self._accept)
        loop.watch(self._datagram, self._receive)

    def _accept(self) -> None:
        for connection in drained(lambda: self._stream.accept()[0]):
            with connection:
                try:
                    source = connection.getpeername()
                except OSError:  # the client has gone already
                    continue
                connection.send(self._answer(connection.getsockname()[0], source))

    def _receive(self) -> None:
        for _, ancillary, _, source in drained(
            lambda: self._datagram.recvmsg(_LARGEST_PACKET, _ANCILLARY_BYTES)
        ):
            address = destination_of(ancillary)
            answer = self._answer(address, source)
            self._datagram.sendmsg([answer], [from_address(address)], 0, source)

    def _answer(self, address: str, source: tuple[str, int]) -> bytes:
        by = endpoint_text(address, self._port)
        return encode_answer(Answered(by, self._place, endpoint_text(source[0], source[1])))


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("", port))
    return sock
