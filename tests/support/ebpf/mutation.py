"""Packets with something wrong in them: bits, lengths, parts of headers in other places."""

from __future__ import annotations

import random
from collections.abc import Iterator

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import ARP
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Packet, Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import IPV4_OPTIONS, IPV6_EXTENSIONS, chained
from tests.support.ebpf.packets import ETHERNET, Ends, fragments

SHORTEST = 54  # a test run takes no IPv6 packet without its header
_LONGEST_HEADERS = 140
_ETHERNET_BYTES = 14
_TELLING_BYTES = (0, 1, 4, 5, 6, 17, 43, 44, 45, 51, 60, 80, 127, 128, 132, 224, 255)


def corpus(family: Family, sent: Ends, about: Ends, reporter: str) -> list[bytes]:
    """Return frames that are worth mutating: packets, fragments, errors `about` others, foreign."""
    found = []
    make = IP if family is Family.IPV4 else IPv6
    ip = make(src=sent.source, dst=sent.destination)
    for payload in _payloads(sent):
        found += [bytes(ETHERNET / packet) for packet in _headed(family, ip, payload)]
    inner = make(src=about.source, dst=about.destination)
    outer = make(src=reporter, dst=about.source)
    for payload in _payloads(about):
        for packet in _headed(family, inner, payload):
            found += [bytes(ETHERNET / outer / each) for each in _errors(family, bytes(packet))]
    ports = {"sport": sent.source_port, "dport": sent.destination_port}
    for whole in (
        UDP(**ports) / Raw(bytes(200)),
        SCTP(**ports) / SCTPChunkData(data=bytes(100)),
    ):
        found += fragments(ip / whole, 64)
    back = make(src=sent.destination, dst=sent.source)
    for foreign in (
        *(ARP() / bytes(20), IP() / TCP() / bytes(20), IPv6() / UDP() / bytes(20)),
        back / TCP(sport=ports["dport"], dport=ports["sport"]) / bytes(9),
    ):
        found.append(bytes(ETHERNET / foreign))
    return found


def mutated(chance: random.Random, frames: list[bytes]) -> bytes:
    """Return a frame with something wrong in it, or nothing."""
    data = bytearray(chance.choice(frames))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        at = chance.randrange(min(len(data), _LONGEST_HEADERS))
        if at < _ETHERNET_BYTES and chance.random() < 0.8:
            at += _ETHERNET_BYTES
        _mutate(chance, data, at)
    return bytes(data + bytes(max(0, SHORTEST - len(data))))


def _mutate(chance: random.Random, data: bytearray, at: int) -> None:
    what = chance.randrange(6)
    if what == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif what == 1:
        data[at] = chance.choice(_TELLING_BYTES)
    elif what == 2:
        data[at] = chance.randrange(256)
    elif what == 3:
        del data[max(SHORTEST, chance.randrange(len(data))) :]
    elif what == 4:
        data += bytes(chance.randrange(40))
    else:
        start = chance.randrange(len(data))
        part = data[start : start + 8]
        data[at : at + len(part)] = part[: len(data) - at]


def _payloads(ends: Ends) -> Iterator[Packet]:
    ports = {"sport": ends.source_port, "dport": ends.destination_port}
    yield TCP(**ports, seq=1, flags="S", options=[("MSS", 1460)])
    yield TCP(**ports, flags="PA") / Raw(bytes(range(64)))
    yield UDP(**ports) / Raw(b"question")
    yield UDP(**ports, chksum=0) / Raw(b"odd")
    yield SCTP(**ports, tag=0) / SCTPChunkInit(init_tag=7)


def _headed(family: Family, ip: Packet, payload: Packet) -> Iterator[Packet]:
    """Yield the payload behind all that can be before it."""
    if family is Family.IPV6:
        yield from (chained(ip, extensions, payload) for extensions in IPV6_EXTENSIONS.values())
        return
    for options in IPV4_OPTIONS.values():
        header = ip.copy()
        header.options = options
        yield header / payload


def _errors(family: Family, embedded: bytes) -> Iterator[Packet]:
    if family is Family.IPV4:
        yield ICMP(type=3, code=3) / Raw(embedded)
        yield ICMP(type=11) / Raw(embedded[:28])
    else:
        yield ICMPv6DestUnreach() / Raw(embedded)
        yield ICMPv6PacketTooBig() / Raw(embedded)
