"""Keys of the objects that have no name: what the kernel knows each by, as bytes. Pure.

| key | value |
|---|---|
| `A`, address | an address of our link: from which one the node speaks to it, b"" for any |
| `S`, address | one that is on our link for packets of our mark alone: b"" |
| `R` | the rule that leads packets of our mark to those: b"" |
| `M`, set, element | a member of an ipset: its packet mark, b"" if the set has none |
| `V`, virtual server | scheduler:flags:persistence in seconds |
| `D`, virtual server, address, port | a destination: its weight |

A virtual server is the protocol's number, address and port; or 0 and a firewall mark. An element
is written as its type says: the protocol's number, address and port, then the network and its
length; an address; a port. Numbers are in network order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import NamedTuple

from backends.ipvs.render.sets import SetKind
from kproxy.core.addresses import Network, endpoint_text
from kproxy.core.image import Key
from kproxy.core.objects import Protocol

WEIGHT = b"1"
"""The weight of every destination that takes connections."""

STEERING = b"R"
"""The key of the rule that leads packets of our mark to our link."""

_ADDRESS, _STEERED, _MEMBER, _SERVER, _DESTINATION = b"A", b"S", b"M", b"V", b"D"
_NUMBERS = {Protocol.TCP: b"\x06", Protocol.UDP: b"\x11", Protocol.SCTP: b"\x84"}
_PROTOCOLS = {number[0]: protocol for protocol, number in _NUMBERS.items()}
_NO_PROTOCOL = b"\0"
_KINDS = tuple(SetKind)
_MARK_BYTES = 4


class Place(NamedTuple):
    """Where a frontend is met."""

    address: str
    protocol: Protocol
    port: int


class MarkedServer(NamedTuple):
    """A virtual server that is met by a packet's mark."""

    mark: int


class Address(NamedTuple):
    """An address of our link."""

    address: str


class Steered(NamedTuple):
    """An address that is on our link for packets of our mark alone."""

    address: str


class Steering(NamedTuple):
    """The rule that leads packets of our mark to our link."""


class Source(NamedTuple):
    """A network from which a place may be used."""

    place: Place
    network: Network


class Member(NamedTuple):
    """An element of an ipset: a place, a place with a network, an address or a port."""

    kind: SetKind
    element: Place | Source | str | int


class Destination(NamedTuple):
    """An endpoint of a virtual server."""

    server: Place | MarkedServer
    address: str
    port: int


Entry = Address | Steered | Steering | Member | Place | MarkedServer | Destination


def address_key(address: str) -> bytes:
    """Return the key of an address of our link."""
    return raw_address_key(packed(address))


def raw_address_key(address: bytes) -> bytes:
    """Return the key of an address of our link that is packed."""
    return _ADDRESS + address


def steered_key(address: str) -> bytes:
    """Return the key of an address of our link for packets of our mark alone."""
    return raw_steered_key(packed(address))


def raw_steered_key(address: bytes) -> bytes:
    """Return the key of such an address that is packed."""
    return _STEERED + address


def member_key(kind: SetKind, element: bytes) -> bytes:
    """Return the key of a member of an ipset."""
    return _MEMBER + bytes([_KINDS.index(kind)]) + element


def server_key(server: bytes) -> bytes:
    """Return the key of a virtual server."""
    return _SERVER + server


def destination_key(server: bytes, address: str, port: int) -> bytes:
    """Return the key of an endpoint of a virtual server."""
    return raw_destination_key(server, packed(address), port)


def raw_destination_key(server: bytes, address: bytes, port: int) -> bytes:
    """Return the key of an endpoint whose address is packed."""
    return _DESTINATION + server + address + _number(port)


def packed(address: str) -> bytes:
    """Return a canonical address as bytes."""
    if ":" in address:
        return ipaddress.IPv6Address(address).packed
    return bytes(map(int, address.split(".")))  # in a tenth of the time


def place_bytes(place: Place) -> bytes:
    """Return a place: as a virtual server, and as an element of a set."""
    return _NUMBERS[place.protocol] + packed(place.address) + _number(place.port)


def mark_bytes(mark: int) -> bytes:
    """Return a packet mark: as the value of a member."""
    return mark.to_bytes(_MARK_BYTES, "big")


def marked_bytes(mark: int) -> bytes:
    """Return the virtual server that is met by a mark."""
    return _NO_PROTOCOL + mark_bytes(mark)


def marked(server: bytes) -> int:
    """Return the mark by which a virtual server is met, 0 if it is at an address."""
    return _read(server[1:]) if server[:1] == _NO_PROTOCOL else 0


def address_of(server: bytes) -> bytes:
    """Return the packed address of a virtual server that is at one."""
    return server[1:-2]


def source_bytes(place: Place, network: Network) -> bytes:
    """Return the element that admits a network to a place."""
    return place_bytes(place) + network.network_address.packed + bytes([network.prefixlen])


def port_bytes(port: int) -> bytes:
    """Return the element of a set of ports."""
    return _number(port)


def entry(key: Key) -> Entry:
    """Return what a key stands for."""
    assert isinstance(key, bytes), "the keys of objects without names are bytes"
    kind, rest = key[:1], key[1:]
    if kind == _ADDRESS:
        return Address(_address(rest))
    if kind == _STEERED:
        return Steered(_address(rest))
    if kind == STEERING:
        return Steering()
    member = split_member(key)
    if member is not None:
        return Member(member[0], _element(*member))
    if kind == _SERVER:
        return _server(rest)
    server, address, port = _halves(rest)
    return Destination(_server(server), _address(address), port)


def split_address(key: Key) -> bytes | None:
    """Return the packed address of a key, None if it is of something else."""
    return None if isinstance(key, str) or key[:1] != _ADDRESS else key[1:]


def split_steered(key: Key) -> bytes | None:
    """Return the packed address of a key for packets of our mark, None for other keys."""
    return None if isinstance(key, str) or key[:1] != _STEERED else key[1:]


def split_member(key: Key) -> tuple[SetKind, bytes] | None:
    """Return set and element of a key, None if it is of something else."""
    if isinstance(key, str) or key[:1] != _MEMBER:
        return None
    return _KINDS[key[1]], key[2:]


def split_server(key: Key) -> bytes | None:
    """Return the bytes of a virtual server, None if the key is of something else."""
    return None if isinstance(key, str) or key[:1] != _SERVER else key[1:]


def split_destination(key: Key) -> tuple[bytes, bytes, int] | None:
    """Return virtual server, packed address and port of an endpoint, None for other keys."""
    return None if isinstance(key, str) or key[:1] != _DESTINATION else _halves(key[1:])


def describe(key: bytes) -> str:
    """Return what an object is, for a person."""
    match entry(key):
        case Address(address):
            return f"the address {address} of our link"
        case Steered(address):
            return f"the address {address} of our link, for packets of our mark"
        case Steering():
            return "the rule that leads packets of our mark to our link"
        case Member(kind, element):
            return f"the element {_element_text(element)} of the ipset {kind.value.name}"
        case Destination(server, address, port):
            return f"{endpoint_text(address, port)} behind {_server_text(server)}"
        case server:
            return _server_text(server)


def somebody_elses(servers: Collection[Place]) -> str:
    """Return what is wrong with virtual servers, one at least, where ours would be."""
    first = _server_text(min(servers, key=_place_text))
    more = f", as do {len(servers) - 1} more" if len(servers) > 1 else ""
    return f"{first} is somebody else's, and stays so{more}"


def _halves(rest: bytes) -> tuple[bytes, bytes, int]:
    of_mark = rest[:1] == _NO_PROTOCOL
    length = 1 + _MARK_BYTES if of_mark else len(rest) - (len(rest) - 5) // 2 - 2
    return rest[:length], rest[length:-2], _read(rest[-2:])


def _server(server: bytes) -> Place | MarkedServer:
    return MarkedServer(_read(server[1:])) if server[:1] == _NO_PROTOCOL else place_of(server)


def place_of(place: bytes) -> Place:
    """Return the place that an element of a set, or a virtual server at one, stands for."""
    return Place(_address(place[1:-2]), _PROTOCOLS[place[0]], _read(place[-2:]))


def _server_text(server: Place | MarkedServer) -> str:
    if isinstance(server, MarkedServer):
        return f"the virtual server of mark {server.mark:#x}"
    return f"the virtual server {_place_text(server)}"


def _element(kind: SetKind, element: bytes) -> Place | Source | str | int:
    match kind.value.type:
        case "bitmap:port":
            return _read(element)
        case "hash:ip":
            return _address(element)
        case "hash:ip,port,net":
            width = (len(element) - 4) // 2
            place, network, length = element[: 3 + width], element[3 + width : -1], element[-1]
            return Source(place_of(place), ipaddress.ip_network((network, length)))
        case _:
            return place_of(element)


def _element_text(element: Place | Source | str | int) -> str:
    match element:
        case Source(place, network):
            return f"{_place_text(place)} from {network}"
        case Place():
            return _place_text(element)
        case _:
            return str(element)


def _place_text(place: Place) -> str:
    return f"{endpoint_text(place.address, place.port)} {place.protocol.value}"


def _number(port: int) -> bytes:
    return port.to_bytes(2, "big")


def _read(number: bytes) -> int:
    return int.from_bytes(number, "big")


def _address(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
