"""What can stand between an IP header and L4, as scapy layers."""

from __future__ import annotations

import struct

from scapy.layers.inet import IPOption, IPOption_NOP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

IPV4_OPTIONS = {
    "none": [],
    "padding": [IPOption_NOP()] * 4,
    "record route": [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3)],
    "timestamp": [IPOption_Timestamp(length=8, pointer=5)],
    "all 40 bytes": [IPOption_NOP()] * 40,
    "an unknown one": [IPOption(b"\x5e\x04\x00\x00")],
}

HOP_BY_HOP = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])
DESTINATION = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
VISITED = IPv6ExtHdrRouting(type=4, segleft=0, addresses=["2001:db8::99"])

IPV6_EXTENSIONS: dict[str, list[Packet]] = {
    "none": [],
    "hop by hop": [HOP_BY_HOP],
    "destination options": [DESTINATION],
    "a route at its end": [VISITED],
    "four of them": [HOP_BY_HOP, DESTINATION, VISITED, DESTINATION],
    "the most": [HOP_BY_HOP, *[DESTINATION] * 4],
}


def chained(ip: Packet, extensions: list[Packet], payload: Packet) -> Packet:
    """Return the packet with extension headers in between."""
    for extension in extensions:
        ip = ip / extension.copy()
    return ip / payload


def with_authentication(ip: Packet, payload: Packet, protocol: int) -> Packet:
    """Return an IPv6 packet whose payload has an authentication header before it."""
    header = struct.pack("!BBHII", protocol, 4, 0, 1, 1) + b"\x5a" * 12
    return ip / Raw(header) / payload
