"""The bytes of SCTP's handshake (RFC 9260), and the addresses in an IP packet."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from kproxy.core.objects import Protocol

IPPROTO_SCTP = 132
INIT = 1
INIT_ACK = 2

_HEADER = struct.Struct("!HHI")  # source port, destination port, verification tag
_CHUNK = struct.Struct("!BBHIIHHI")  # type, flags, length, tag, window, streams, streams, number
_PARAMETER = struct.Struct("!HH")
_REPORTED = 0xC001  # a parameter that a receiver skips if it does not know it
_PROTOCOLS = {6: Protocol.TCP, 17: Protocol.UDP, IPPROTO_SCTP: Protocol.SCTP}


@dataclass(frozen=True, slots=True)
class SctpPacket:
    """The first packet of a handshake or the answer to it; `note` is text of ours in it."""

    source_port: int
    destination_port: int
    verification_tag: int
    chunk: int
    initiate_tag: int
    note: bytes = b""

    def encode(self) -> bytes:
        """Return the packet with its checksum."""
        note = _PARAMETER.pack(_REPORTED, _PARAMETER.size + len(self.note)) + self.note
        if not self.note:
            note = b""
        length = _CHUNK.size + len(note)
        chunk = _CHUNK.pack(self.chunk, 0, length, self.initiate_tag, 65535, 1, 1, 1) + note
        chunk += bytes(-length % 4)
        header = _HEADER.pack(self.source_port, self.destination_port, self.verification_tag)
        checksum = struct.pack("<I", crc32c(header + bytes(4) + chunk))
        return header + checksum + chunk


def decode_sctp(packet: bytes) -> SctpPacket | None:
    """Return the packet; None if its checksum is wrong or it is no part of a handshake."""
    if len(packet) < _HEADER.size + 4 + _CHUNK.size:
        return None
    source_port, destination_port, tag = _HEADER.unpack_from(packet)
    if packet[8:12] != struct.pack("<I", crc32c(packet[:8] + bytes(4) + packet[12:])):
        return None
    kind, _, length, initiate_tag, *_ = _CHUNK.unpack_from(packet, 12)
    note = packet[12 + _CHUNK.size + _PARAMETER.size : 12 + length]
    return SctpPacket(source_port, destination_port, tag, kind, initiate_tag, note)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum of RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Addressing:
    """Who sends an IP packet to whom."""

    protocol: Protocol
    source: str
    source_port: int
    destination: str
    destination_port: int


def addressing(packet: bytes) -> Addressing | None:
    """Return the addresses and ports of an IP packet; None if it has no ports.

    Neither fragments nor IPv6 extension headers occur in the test network.
    """
    if packet[0] >> 4 == 4:
        size, number = (packet[0] & 15) * 4, packet[9]
        source, destination = packet[12:16], packet[16:20]
        family = socket.AF_INET
    else:
        size, number = 40, packet[6]
        source, destination = packet[8:24], packet[24:40]
        family = socket.AF_INET6
    protocol = _PROTOCOLS.get(number)
    if protocol is None:
        return None
    source_port, destination_port = struct.unpack_from("!HH", packet, size)
    return Addressing(
        protocol,
        socket.inet_ntop(family, source),
        source_port,
        socket.inet_ntop(family, destination),
        destination_port,
    )
