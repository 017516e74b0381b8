"""Packets through programs that are made of the headers about packets alone (kproxy/packet.h)."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, _ICMPv6
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from backends.ebpf.compiler import load_unit
from backends.ebpf.render.crc32c import shift_tables
from backends.kernel.bpf import programs
from kproxy.core.addresses import Family
from tests.support.ebpf.sources import Loaded

SOURCE = Path(__file__).with_name("packet.bpf.c")
UNTOUCHED, TRANSLATED, DROPPED, REDIRECTED = 0xFFFFFFFF, 0, 2, 7  # enum of TC_ACT
NARROW_MTU = 1280
NUMBERS = {TCP: 6, UDP: 17, SCTP: 132}

# Frames that test runs are given are for the machine's own loopback device, whose address this is.
ETHERNET = Ether(dst="00:00:00:00:00:00", src="02:11:22:33:44:55")


class Kind(IntEnum):
    """enum packet_kind."""

    PLAIN = 0
    LATER_FRAGMENT = 1
    ERROR = 2
    OTHER_FAMILY = 3
    TAGGED = 4
    LINK_UNKNOWN = 5
    NOT_UNICAST = 6
    SOURCE_ROUTED = 7
    EXTENSIONS = 8
    TRUNCATED = 9
    GARBLED = 10


class Role(IntEnum):
    """enum role: by which end an order is found."""

    DESTINATION = 0
    SOURCE = 1
    EMBEDDED_DESTINATION = 2
    EMBEDDED_SOURCE = 3


class Ends(NamedTuple):
    """Addresses and ports of a packet."""

    source: str
    source_port: int
    destination: str
    destination_port: int


@dataclass(frozen=True, slots=True)
class Places:
    """Who takes part in a conversation of a family."""

    client: str
    frontend: str
    endpoint: str
    node: str
    router: str


PLACES = {
    Family.IPV4: Places("203.0.113.7", "10.96.0.10", "10.1.200.3", "192.0.2.1", "198.51.100.1"),
    Family.IPV6: Places(
        "2001:db8:7::7", "fd00:96::a", "fd00:1:200::3", "2001:db8:2::1", "2001:db8:51::1"
    ),
}


class Read(NamedTuple):
    """What read_packet() found."""

    ends: Ends
    l3: int
    l4: int
    end: int
    fragment_id: int
    sequence: int
    acknowledgment: int
    window: int
    tcp_flags: int
    tcp_header: int
    kind: Kind
    protocol: int
    first_fragment: int
    icmp_type: int
    icmp_code: int


class PacketPrograms(Loaded):
    """The programs of packet.bpf.c, and what they are to do."""

    def __init__(self, family: Family, bytecode: Path) -> None:
        super().__init__(load_unit(SOURCE, family, cache=bytecode))
        self.family = family
        self.places = PLACES[family]
        self.maps["crc_shifts"].update_many(shift_tables())

    def rewrite(
        self, role: Role, address: str, port: int, protocol: int, to: Ends, keep: str = ""
    ) -> None:
        """Order that packets with this end get other ones, but keep `source` or `destination`."""
        value = packed_ends(to) + bytes((0, keep == "source", keep == "destination", 0))
        self.maps["orders"].update(_order_key(role, address, port, protocol), value)

    def refuse(self, address: str, port: int, protocol: int, *, too_big: bool = False) -> None:
        """Order that packets to here are refused, or those of more than NARROW_MTU bytes."""
        value = packed_ends(Ends(address, 0, address, 0)) + bytes((1 + too_big, 0, 0, 0))
        key = _order_key(Role.DESTINATION, address, port, protocol)
        self.maps["orders"].update(key, value)

    def forget(self) -> None:
        """Take all orders back, and what was kept of fragments."""
        for name in ("orders", "fragments"):
            self.maps[name].delete_many(list(self.maps[name].keys()))

    def run(self, frame: Packet | bytes, program: str = "translate_all", gso_size: int = 0):
        """Give a frame to a program; return its verdict and the frame as it is then."""
        context = bytearray(192)
        struct.pack_into("=I", context, 176, gso_size)
        data = bytes(frame)
        return programs.run(self.programs[program], data, context=bytes(context))

    def read(self, frame: Packet | bytes, gso_size: int = 0) -> Read:
        """Return how a packet is read."""
        self.run(frame, gso_size=gso_size)
        size = 4 if self.family is Family.IPV4 else 16
        source, destination, sport, dport, *rest = struct.unpack(
            f"={size}s{size}s2s2s6IH7B3x", self.maps["read"].lookup(bytes(4)) or b""
        )
        ends = Ends(
            str(ipaddress.ip_address(source)),
            int.from_bytes(sport, "big"),
            str(ipaddress.ip_address(destination)),
            int.from_bytes(dport, "big"),
        )
        return Read(ends, *rest)._replace(kind=Kind(rest[9]))

    def ip(self, source: str, destination: str, **fields: object) -> Packet:
        """Return an IP header of the family."""
        make = IP if self.family is Family.IPV4 else IPv6
        return make(src=source, dst=destination, **fields)


def packed_ends(ends: Ends) -> bytes:
    """Return struct ends."""
    source, destination = (
        ipaddress.ip_address(each).packed for each in (ends.source, ends.destination)
    )
    return source + destination + struct.pack("!HH", ends.source_port, ends.destination_port)


def _order_key(role: Role, address: str, port: int, protocol: int) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return packed + struct.pack("!HBB", port, protocol, role)


_CHECKSUMS = {
    IP: "chksum",
    IPerror: "chksum",
    TCP: "chksum",
    TCPerror: "chksum",
    UDP: "chksum",
    UDPerror: "chksum",
    ICMP: "chksum",
    ICMPerror: "chksum",
    SCTP: "chksum",
}


def recomputed(frame: Packet, *, keep_zero_udp: bool = True) -> bytes:
    """Return the frame with all checksums as scapy computes them."""
    frame = frame.copy()
    layer = frame
    while layer and not isinstance(layer, Raw):
        name = "cksum" if isinstance(layer, _ICMPv6) else _CHECKSUMS.get(type(layer))
        zero_udp = isinstance(layer, UDP) and layer.chksum == 0 and keep_zero_udp
        if name and not zero_udp:
            delattr(layer, name)
        layer = layer.payload
    return bytes(frame)


def with_ends(frame: Packet, ends: Ends) -> bytes:
    """Return a built frame with other ends, all checksums computed anew."""
    changed = Ether(bytes(frame)) if not isinstance(frame, Ether) else frame.copy()
    ip = changed.payload
    ip.src, ip.dst = ends.source, ends.destination
    for kind in (TCP, UDP, SCTP):
        if kind in changed:
            changed[kind].sport, changed[kind].dport = ends.source_port, ends.destination_port
            break
    return recomputed(changed)


def fragments(packet: Packet, size: int, identity: int = 0x1234) -> list[bytes]:
    """Return frames with the packet's fragments, of `size` bytes each, in their order."""
    packet = packet.__class__(bytes(packet))
    payload = bytes(packet.payload)
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    frames = []
    for number, part in enumerate(parts):
        more, offset = number + 1 < len(parts), number * size // 8
        header = packet.copy()
        header.remove_payload()
        if isinstance(header, IP):
            header.flags, header.frag, header.id = "MF" if more else 0, offset, identity
            header.len = header.chksum = None
        else:
            protocol, header.nh, header.plen = header.nh, 44, None
            header /= IPv6ExtHdrFragment(m=more, offset=offset, id=identity, nh=protocol)
        frames.append(bytes(ETHERNET / header / Raw(part)))
    return frames
