"""What must become of any bytes whatever, said again in Python: for packets that nobody would send.

The programs read packets in C; this reads them on its own, and compares sums where they compute
differences.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scapy.layers.sctp import crc32c

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import Ends, Kind

ETHERNET_BYTES = 14
TCP, UDP, SCTP = 6, 17, 132
_WITH_PORTS = {TCP: 20, UDP: 8, SCTP: 12}
_PSEUDO = {TCP: 16, UDP: 6, 136: 6, 33: 6}
_EXTENSIONS = {0, 43, 44, 51, 60}


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet as the model reads it; offsets are into the frame."""

    kind: Kind
    protocol: int = 0
    source: bytes = b""
    destination: bytes = b""
    ports: bytes = bytes(4)
    l3: int = 0
    l4: int = 0
    end: int = 0
    identity: int = 0
    first: bool = False

    @property
    def ends(self) -> Ends:
        """Addresses and ports."""
        source, destination = (
            str(ipaddress.ip_address(each)) for each in (self.source, self.destination)
        )
        sport, dport = struct.unpack("!HH", self.ports)
        return Ends(source, sport, destination, dport)


class Model:
    """Reads packets of a family."""

    def __init__(self, family: Family) -> None:
        self.four = family is Family.IPV4
        self.icmp = 1 if self.four else 58
        self.pseudo = _PSEUDO if self.four else {**_PSEUDO, 58: 2}
        self._errors = {3, 11, 12} if self.four else {1, 2, 3, 4}

    def read(self, frame: bytes) -> Seen:
        """Read a frame."""
        if frame[12:14] != (b"\x08\x00" if self.four else b"\x86\xdd"):
            return Seen(Kind.OTHER_FAMILY)
        if frame[0] & 1:
            return Seen(Kind.NOT_UNICAST)
        return self._network(frame, ETHERNET_BYTES, len(frame), embedded=False)

    def embedded(self, frame: bytes, error: Seen) -> Seen:
        """Read what an error is about."""
        seen = self._network(frame, error.l4 + 8, error.end, embedded=True)
        if seen.kind is Kind.PLAIN and seen.source != error.destination:
            return replace(seen, kind=Kind.GARBLED)
        return seen

    def _network(self, frame: bytes, l3: int, end: int, *, embedded: bool) -> Seen:
        return (self._ipv4 if self.four else self._ipv6)(frame, l3, end, embedded)

    def _ipv4(self, frame: bytes, l3: int, end: int, embedded: bool) -> Seen:
        if l3 + 20 > len(frame):
            return Seen(Kind.TRUNCATED)
        first, _, total, identity, fragment, _, protocol = struct.unpack_from("!BBHHHBB", frame, l3)
        header = (first & 15) * 4
        if first >> 4 != 4 or header < 20 or total < header:
            return Seen(Kind.GARBLED)
        if l3 + total > end and not embedded:
            return Seen(Kind.TRUNCATED)
        end = min(end, l3 + total)
        l4 = l3 + header
        if l4 > end:
            return Seen(Kind.TRUNCATED)
        source, destination = frame[l3 + 12 : l3 + 16], frame[l3 + 16 : l3 + 20]
        if not all(0 < each[0] < 224 for each in (source, destination)):
            return Seen(Kind.NOT_UNICAST)
        if _is_source_routed(frame, l3 + 20, l4):
            return Seen(Kind.SOURCE_ROUTED)
        seen = Seen(
            Kind.PLAIN,
            *(protocol, source, destination),
            l3=l3,
            l4=l4,
            end=end,
            identity=identity,
            first=bool(fragment & 0x2000),
        )
        if fragment & 0x1FFF:
            return replace(seen, kind=Kind.LATER_FRAGMENT, first=False)
        return self._transport(frame, seen, embedded)

    def _ipv6(self, frame: bytes, l3: int, end: int, embedded: bool) -> Seen:
        if l3 + 40 > len(frame):
            return Seen(Kind.TRUNCATED)
        if frame[l3] >> 4 != 6:
            return Seen(Kind.GARBLED)
        length, protocol = struct.unpack_from("!HB", frame, l3 + 4)
        l4 = l3 + 40
        if l4 + length > end and not embedded:
            return Seen(Kind.TRUNCATED)
        end = min(end, l4 + length)
        if l4 > end:
            return Seen(Kind.TRUNCATED)
        source, destination = frame[l3 + 8 : l3 + 24], frame[l3 + 24 : l3 + 40]
        if not all(each[0] != 255 and any(each) for each in (source, destination)):
            return Seen(Kind.NOT_UNICAST)
        seen = Seen(Kind.PLAIN, protocol, source, destination, l3=l3, l4=l4, end=end)
        seen = _extended(frame, seen)
        return self._transport(frame, seen, embedded) if seen.kind is Kind.PLAIN else seen

    def _transport(self, frame: bytes, seen: Seen, embedded: bool) -> Seen:
        needed = {**_WITH_PORTS, self.icmp: 8}.get(seen.protocol, 0)
        if seen.l4 + (min(needed, 8) if embedded else needed) > seen.end:
            return replace(seen, kind=Kind.TRUNCATED)
        if seen.protocol == self.icmp:
            is_error = frame[seen.l4] in self._errors and not seen.first
            return replace(seen, kind=Kind.ERROR if is_error else Kind.PLAIN)
        if seen.protocol not in _WITH_PORTS:
            return seen
        if seen.protocol == TCP and not embedded:
            header = (frame[seen.l4 + 12] >> 4) * 4
            if header < 20 or seen.l4 + header > seen.end:
                return replace(seen, kind=Kind.GARBLED)
        return replace(seen, ports=frame[seen.l4 : seen.l4 + 4])


def _is_source_routed(frame: bytes, at: int, end: int) -> bool:
    for _ in range(40):
        if at >= end or at + 2 > len(frame) or frame[at] == 0:
            return False
        if frame[at] in (0x83, 0x89):
            return True
        at += 1 if frame[at] == 1 else frame[at + 1]
    return False


def _extended(frame: bytes, seen: Seen) -> Seen:
    """Return what a packet is once its extension headers are walked."""
    for _ in range(6):
        if seen.protocol not in _EXTENSIONS:
            return seen
        at = seen.l4
        if at + 8 > seen.end:
            return replace(seen, kind=Kind.TRUNCATED)
        following, length, word, identity = struct.unpack_from("!BBHI", frame, at)
        size = {44: 8, 51: (length + 2) * 4}.get(seen.protocol, (length + 1) * 8)
        if seen.protocol == 44 and seen.first:
            return replace(seen, kind=Kind.GARBLED)
        if seen.protocol == 43 and word & 255:
            return replace(seen, kind=Kind.SOURCE_ROUTED)
        if at + size > seen.end:
            return replace(seen, kind=Kind.TRUNCATED)
        if seen.protocol == 44:
            seen = replace(seen, identity=identity, first=bool(word & 1))
            if word >> 3:
                later = replace(seen, kind=Kind.LATER_FRAGMENT, first=False)
                return replace(later, protocol=following, l4=at + size)
        seen = replace(seen, protocol=following, l4=at + size)
    return replace(seen, kind=Kind.EXTENSIONS)


def summed(*parts: bytes) -> int:
    """Return what the Internet checksum makes of parts, each but the last one even."""
    data = b"".join(parts)
    return int.from_bytes(data + bytes(len(data) & 1), "big") % 0xFFFF


@dataclass(frozen=True, slots=True)
class Change:
    """Which bytes of a frame may differ, and how: values at offsets, and fields that sum up."""

    values: Mapping[int, bytes]
    sums: frozenset[int]

    def masked(self, frame: bytes) -> bytes:
        """Return the frame with its sums cut out."""
        data = bytearray(frame)
        for at in self.sums:
            data[at : at + 2] = bytes(2)
        return bytes(data)

    def applied(self, frame: bytes) -> bytes:
        """Return the frame as it must be, with its sums cut out."""
        data = bytearray(frame)
        for at, value in self.values.items():
            data[at : at + len(value)] = value
        return self.masked(bytes(data))


def change_of(model: Model, seen: Seen, to: Ends, frame: bytes) -> Change:
    """Return how a frame changes at the headers of one packet in it."""
    source, destination = (
        ipaddress.ip_address(each).packed for each in (to.source, to.destination)
    )
    values = {seen.l3 + (12 if model.four else 8): source + destination}
    sums = {seen.l3 + 10} if model.four else set()
    if seen.kind is Kind.PLAIN and seen.protocol in _WITH_PORTS:
        values[seen.l4] = struct.pack("!HH", to.source_port, to.destination_port)
    field = model.pseudo.get(seen.protocol)
    if seen.kind is not Kind.LATER_FRAGMENT and field and seen.l4 + field + 2 <= seen.end:
        sums.add(seen.l4 + field)
    if seen.protocol == SCTP and seen.kind is Kind.PLAIN:
        sums |= {seen.l4 + 8, seen.l4 + 10}
    return Change(values, frozenset(sums))


def error_changes(
    model: Model, frame: bytes, error: Seen, embedded: Seen, to: Ends
) -> tuple[list[Change], list[Seen]]:
    """Return how an error changes with what it is about, and what sums up in it."""
    sender = to.destination if to.destination != embedded.ends.destination else error.ends.source
    inner = change_of(model, embedded, to, frame)
    if embedded.protocol == SCTP:  # its CRC covers what an error does not embed
        inner = Change(inner.values, inner.sums - {embedded.l4 + 8, embedded.l4 + 10})
    around = change_of(model, error, Ends(sender, 0, to.source, 0), frame)
    around = Change(around.values, around.sums | {error.l4 + 2})
    return [inner, around], [error] if embedded.protocol == SCTP else [error, embedded]


def merged(changes: Iterable[Change]) -> Change:
    """Return changes at several places of a frame as one."""
    values: dict[int, bytes] = {}
    sums: set[int] = set()
    for each in changes:
        values.update(each.values)
        sums |= each.sums
    return Change(values, frozenset(sums))


def sums_hold(model: Model, seen: Seen, before: bytes, after: bytes) -> bool:
    """Say whether what was right is right, and what was wrong is wrong by as much."""
    if model.four and summed(before[seen.l3 : seen.l4]) != summed(after[seen.l3 : seen.l4]):
        return False
    if seen.kind is Kind.LATER_FRAGMENT:
        return True
    if seen.protocol == SCTP:
        return _crc_holds(seen, before, after)
    if seen.kind is Kind.ERROR and model.four:
        return summed(before[seen.l4 : seen.end]) == summed(after[seen.l4 : seen.end])
    field = model.pseudo.get(seen.protocol)
    if field is None:
        return True
    if seen.l4 + field + 2 > seen.end:
        return True
    stated = slice(seen.l4 + field, seen.l4 + field + 2)
    if seen.protocol == UDP and before[stated] == bytes(2):
        return after[stated] == bytes(2)
    if seen.protocol == UDP and after[stated] == bytes(2):
        return False
    addresses = slice(seen.l3 + (12 if model.four else 8), seen.l3 + (20 if model.four else 40))
    parts = slice(seen.l4, seen.end)
    return summed(before[addresses], before[parts]) == summed(after[addresses], after[parts])


def _crc_holds(seen: Seen, before: bytes, after: bytes) -> bool:
    at = seen.l4 + 8
    if before[at : at + 4] == bytes(4):
        return after[at : at + 4] == bytes(4)

    def difference(frame: bytes) -> int:
        packet = bytearray(frame[seen.l4 : seen.end])
        stated = int.from_bytes(packet[8:12], "big")
        packet[8:12] = bytes(4)
        return int(crc32c(bytes(packet))) ^ stated

    return difference(before) == difference(after)
