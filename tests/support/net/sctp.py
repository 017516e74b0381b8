"""SCTP without sockets for it: handshakes made by hand on raw sockets.

A kernel without SCTP still tracks and translates it.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Callable

from kproxy.core.addresses import Family, endpoint_text
from tests.support.net.ancillary import (
    ask_for_destination,
    ask_for_errors,
    destination_of,
    drained,
    from_address,
    is_port_unreachable,
)
from tests.support.net.loop import Loop
from tests.support.net.observed import Answered, Observed, Probe, Refused
from tests.support.net.responders import FAMILIES, decode_answer, encode_answer
from tests.support.net.wire import INIT, INIT_ACK, IPPROTO_SCTP, SctpPacket, decode_sctp

_LARGEST_PACKET = 65536
_ANCILLARY_BYTES = 512
_tags = itertools.count(0x10000)

Report = Callable[[Observed], None]


# What the node's own sender hears of a rule, or of a program at a device, that drops its packet.
_DROPPED = (errno.EPERM, errno.ENOBUFS)


class SctpPeer:
    """All of one namespace's SCTP over one family: it answers INITs and sends them.

    Made inside the namespace, and registered in the loop.
    """

    def __init__(self, loop: Loop, *, place: str, family: Family, ports: set[int]) -> None:
        self._place = place
        self._ports = ports  # those that are served; the owner may add some
        self._waiting: dict[int, Report] = {}  # by source port
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(FAMILIES[family], kind, IPPROTO_SCTP)
        ask_for_destination(self._socket)
        ask_for_errors(self._socket)
        loop.watch(self._socket, self._receive)

    def send(self, probe: Probe, source_port: int, report: Report) -> None:
        """Send an INIT; `report` is called when it was answered or refused."""
        self._waiting[source_port] = report
        init = SctpPacket(source_port, probe.port, 0, INIT, next(_tags))
        self._send(init, source=probe.source, destination=probe.destination)

    def forget(self, source_port: int) -> None:
        """Stop waiting for an answer."""
        self._waiting.pop(source_port, None)

    def _send(self, packet: SctpPacket, *, source: str, destination: str) -> None:
        to = (destination, 0)
        try:
            self._socket.sendmsg([packet.encode()], [from_address(source)], 0, to)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # the error of an earlier packet
                self._socket.sendmsg([packet.encode()], [from_address(source)], 0, to)
            elif error.errno not in _DROPPED:
                raise

    def _receive(self) -> None:
        for message in drained(lambda: self._receive_one(socket.MSG_ERRQUEUE)):
            self._refused(*message)
        for message in drained(lambda: self._receive_one(0)):
            self._arrived(*message)

    def _receive_one(self, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], str]:
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(
                    _LARGEST_PACKET, _ANCILLARY_BYTES, flags
                )
            except ConnectionRefusedError:
                continue  # announces what the error queue tells in full
            return data, ancillary, sender[0]

    def _refused(self, data: bytes, ancillary: list[tuple[int, int, bytes]], _: str) -> None:
        source_port = int.from_bytes(data[:2], "big")
        if is_port_unreachable(ancillary) and source_port in self._waiting:
            self._waiting.pop(source_port)(Refused())

    def _arrived(self, data: bytes, ancillary: list[tuple[int, int, bytes]], sender: str) -> None:
        if self._socket.family == socket.AF_INET:
            data = data[(data[0] & 15) * 4 :]
        packet = decode_sctp(data)
        if packet is None:
            return
        if packet.chunk == INIT and packet.destination_port in self._ports:
            self._acknowledge(packet, by=destination_of(ancillary), to=sender)
        if packet.chunk == INIT_ACK and packet.destination_port in self._waiting:
            self._waiting.pop(packet.destination_port)(decode_answer(packet.note))

    def _acknowledge(self, init: SctpPacket, *, by: str, to: str) -> None:
        answer = Answered(
            endpoint_text(by, init.destination_port),
            self._place,
            endpoint_text(to, init.source_port),
        )
        acknowledgement = SctpPacket(
            init.destination_port,
            init.source_port,
            init.initiate_tag,
            INIT_ACK,
            next(_tags),
            encode_answer(answer),
        )
        self._send(acknowledgement, source=by, destination=to)
