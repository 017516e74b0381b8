"""UDP entries of the kernel's connection tracking: read and removed by netlink.

Messages and attributes are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from backends.kernel.destinations import PackedDestinations, address_text, packed_address
from backends.kernel.netlink import (
    ACK,
    AF,
    ATTRIBUTE,
    DUMP,
    NESTED,
    REQUEST,
    Netlink,
    attribute,
    netfilter,
    netfilter_body,
    refusal,
    spans,
)
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.ports.data_path import BackendError

_GET = 0x101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_DELETE = 0x102
_STATISTICS = 0x105

_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL, _TUPLE_ZONE = 1, 2, 3
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FILTER_ORIGINAL = 1  # takes flags that say which parts of the original tuple must match
_MATCH_DESTINATION, _MATCH_PROTOCOL, _MATCH_DESTINATION_PORT = 1 << 1, 1 << 3, 1 << 5
_IPV4_SOURCE, _IPV4_DESTINATION, _IPV6_SOURCE, _IPV6_DESTINATION = 1, 2, 3, 4

_TRIES = 5  # so often does upstream read a table that changes meanwhile
_FEW = 4  # up to here the kernel is asked for each destination apart: one walk over its table each
_NAMING = (_ORIGINAL, _ZONE, _ID)  # the attributes that name one entry and no other
_OF_ONE_ENTRY = {errno.ENOENT, errno.EBUSY}  # gone already; in hardware's hands


def wake() -> None:
    """Have the kernel load its connection tracking if that is a module: the first request does.

    What the answer is does not matter: there may be none, or not for this process.
    """
    with suppress(BackendError), Netlink("asking for the state of connection tracking") as netlink:
        netlink.send(netfilter(_STATISTICS, REQUEST | ACK, socket.AF_UNSPEC, b""))
        netlink.status()


def list_udp(family: Family, wanted: Destinations) -> Iterator[Flow]:
    """Yield the UDP entries whose original destination is one of `wanted`.

    Streams, so that a large table costs time and not memory. It may change meanwhile: then an
    entry can be named twice, and after five disturbed readings what they showed has to do.
    Raises BackendError.
    """
    sieve = _Sieve(family, wanted)
    for narrowing in _narrowings(family, wanted):
        for _ in range(_TRIES):
            interrupted = yield from _read(family, narrowing, sieve)
            if not interrupted:
                break


def delete(family: Family, flows: Iterable[Flow]) -> int:
    """Remove these entries, as `list_udp` named them, and return how many still existed.

    The handle holds the original tuple, the zone and the id, so a later entry of the same tuple
    stays. One that the kernel will not let go keeps no other from being removed.
    Raises BackendError.
    """
    doing = "removing tracked UDP flows"
    handles = [flow.handle for flow in flows]
    if not all(handles):
        raise ValueError("without a handle the kernel would remove every entry")
    gone = 0
    refused: list[int] = []
    with Netlink(doing) as netlink:
        bodies = (netfilter_body(AF[family], handle) for handle in handles)
        for _, code in netlink.failures(_DELETE, 0, bodies):
            if code not in _OF_ONE_ENTRY:
                raise netlink.refusal(code)
            if code == errno.ENOENT:
                gone += 1
            else:
                refused.append(code)
    existed = len(handles) - gone
    if refused:
        raise refusal(f"{doing} ({len(refused)} of {existed})", refused[0])
    return existed


class _Sieve(PackedDestinations):
    """The wanted destinations, to tell an entry that has the usual layout before it is decoded."""

    def __init__(self, family: Family, wanted: Destinations) -> None:
        super().__init__(family, wanted)
        bytes_ = family.bits // 8
        self._usual = struct.Struct(f"=III{bytes_}xI{bytes_}sIIB3xI4xI2s2x")
        self._usual_headers = _usual_headers(family)

    def passes_over(self, data: bytes, start: int) -> bool:
        """Say whether the entry whose attributes begin at `start` is surely not wanted.

        Knows only the layout that kernels give a tuple without a zone. What looks otherwise is
        not passed over, and decoded.
        """
        if len(data) - start < self._usual.size:
            return False
        h1, h2, h3, h4, address, h5, h6, protocol, h7, h8, port = self._usual.unpack_from(
            data, start
        )
        if (h1, h2, h3, h4, h5, h6, h7, h8) != self._usual_headers:
            return False
        return protocol != socket.IPPROTO_UDP or not self.admits(address, port)


class _Tuple(NamedTuple):
    """One direction of an entry; addresses as bytes."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    protocol: int
    zone: int


def _read(family: Family, narrowing: bytes, sieve: _Sieve) -> Generator[Flow, None, bool]:
    """Yield one dump's wanted entries; return whether the table changed under the reader."""
    with Netlink("listing tracked UDP flows") as netlink:
        netlink.send(netfilter(_GET, REQUEST | DUMP, AF[family], narrowing))
        for data, start, end in netlink.parts():
            if not sieve.passes_over(data, start):
                yield from _wanted(data, start, end, sieve)
        return netlink.interrupted


def _wanted(data: bytes, start: int, end: int, sieve: _Sieve) -> Iterator[Flow]:
    """Decode the entry whose attributes lie between `start` and `end`; yield it if wanted."""
    parts = {kind: (first, last) for kind, first, last in spans(data, start, end)}
    original = _tuple(data, *parts[_ORIGINAL])
    if original.protocol != socket.IPPROTO_UDP:
        return
    if not sieve.admits(original.destination, original.destination_port.to_bytes(2, "big")):
        return
    reply = _tuple(data, *parts[_REPLY])
    zone = original.zone or reply.zone
    if _ZONE in parts:
        zone = int.from_bytes(data[slice(*parts[_ZONE])], "big")
    named = [
        data[parts[kind][0] - ATTRIBUTE.size : parts[kind][1]] for kind in _NAMING if kind in parts
    ]
    yield Flow(
        address_text(original.source),
        original.source_port,
        address_text(original.destination),
        original.destination_port,
        address_text(reply.source),
        reply.source_port,
        address_text(reply.destination),
        reply.destination_port,
        zone,
        b"".join(part + bytes(-len(part) % 4) for part in named),
    )


def _tuple(data: bytes, start: int, end: int) -> _Tuple:
    """Decode the tuple whose attributes lie between `start` and `end`."""
    addresses: list[bytes] = [b"", b""]
    numbers = {_PROTOCOL_NUMBER: 0, _SOURCE_PORT: 0, _DESTINATION_PORT: 0}
    zone = 0
    for kind, first, last in spans(data, start, end):
        if kind == _TUPLE_IP:
            for side, low, high in spans(data, first, last):
                addresses[side in (_IPV4_DESTINATION, _IPV6_DESTINATION)] = data[low:high]
        elif kind == _TUPLE_PROTOCOL:
            for part, low, high in spans(data, first, last):
                numbers[part] = int.from_bytes(data[low:high], "big")
        elif kind == _TUPLE_ZONE:
            zone = int.from_bytes(data[first:last], "big")
    return _Tuple(
        addresses[0],
        numbers[_SOURCE_PORT],
        addresses[1],
        numbers[_DESTINATION_PORT],
        numbers[_PROTOCOL_NUMBER],
        zone,
    )


def _narrowings(family: Family, wanted: Destinations) -> list[bytes]:
    """Return the filters of the dumps that together show all of `wanted`, and maybe more.

    Kernels before 5.8 ignore them and tell everything. Later ones (6.18 still does) compare IPv6
    addresses the wrong way round and tell all but the wanted one, so there the port must do.
    """
    ports = set(wanted.ports)
    vips = wanted.vips
    if family is Family.IPV6:
        ports |= {port for _, port in vips}
        vips = frozenset()
    if wanted.networks or len(vips) + len(ports) > _FEW:
        return [_narrowing(_MATCH_PROTOCOL, b"", b"")]
    by_port = _MATCH_PROTOCOL | _MATCH_DESTINATION_PORT
    return [
        _narrowing(
            by_port | _MATCH_DESTINATION,
            attribute(_IPV4_DESTINATION, packed_address(address)),
            _port_attribute(port),
        )
        for address, port in sorted(vips)
    ] + [_narrowing(by_port, b"", _port_attribute(port)) for port in sorted(ports)]


def _narrowing(flags: int, address: bytes, port: bytes) -> bytes:
    protocol = attribute(_PROTOCOL_NUMBER, bytes([socket.IPPROTO_UDP]))
    pattern = attribute(_TUPLE_PROTOCOL | NESTED, protocol + port)
    if address:
        pattern = attribute(_TUPLE_IP | NESTED, address) + pattern
    matching = attribute(_FILTER_ORIGINAL, struct.pack("=I", flags))
    return attribute(_ORIGINAL | NESTED, pattern) + attribute(_FILTER | NESTED, matching)


def _port_attribute(port: int) -> bytes:
    return attribute(_DESTINATION_PORT, port.to_bytes(2, "big"))


def _usual_headers(family: Family) -> tuple[int, ...]:
    """Return the attribute headers of an original tuple, as the kernel lays one out."""
    size = family.bits // 8
    v4 = family is Family.IPV4
    headers = [
        (4 + 4 + 2 * (4 + size) + 28, _ORIGINAL | NESTED),
        (4 + 2 * (4 + size), _TUPLE_IP | NESTED),
        (4 + size, _IPV4_SOURCE if v4 else _IPV6_SOURCE),
        (4 + size, _IPV4_DESTINATION if v4 else _IPV6_DESTINATION),
        (28, _TUPLE_PROTOCOL | NESTED),
        (5, _PROTOCOL_NUMBER),
        (6, _SOURCE_PORT),
        (6, _DESTINATION_PORT),
    ]
    return struct.unpack("=8I", b"".join(ATTRIBUTE.pack(*header) for header in headers))
