"""The virtual servers of the kernel's ipvs, and what is behind them, by generic netlink.

pyroute2 0.9.7 is refused when it makes a server of a mark, as it tells no netmask, and takes 0.4 ms
to build a request. Layouts: linux/ip_vs.h, linux/genetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from backends.kernel.netlink import (
    ACK,
    AF,
    DUMP,
    NESTED,
    REQUEST,
    Attributes,
    Netlink,
    NetlinkProtocol,
    NetlinkRefusal,
    attribute,
    attributes,
    message,
    text,
    text_attribute,
)
from kproxy.core.addresses import Family, Network
from kproxy.ports.data_path import BackendError

_GENERIC_HEADER = struct.Struct("=BBH")  # command, version, reserved
_GENERIC = NetlinkProtocol(16, _GENERIC_HEADER.size)
_VERSION = 1
_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_NEW_SERVER, _SET_SERVER, _DELETE_SERVER, _GET_SERVER = range(1, 5)
_NEW_DESTINATION, _SET_DESTINATION, _DELETE_DESTINATION, _GET_DESTINATION = range(5, 9)
_SET_CONFIGURATION, _GET_CONFIGURATION = 12, 13
_SERVER, _DESTINATION = 1, 2
_TCP, _TCP_FIN, _UDP = 4, 5, 6  # timeouts
_AF, _PROTOCOL, _ADDRESS, _PORT, _MARK, _SCHEDULER, _FLAGS, _TIMEOUT, _NETMASK = range(1, 10)
_D_ADDRESS, _D_PORT, _D_METHOD, _D_WEIGHT, _D_UPPER, _D_LOWER, _D_ACTIVE, _D_INACTIVE = range(1, 9)
# Nested: an address of 16 bytes, a port, and four words.
_PAIR = struct.Struct("=HHHH16sHH2s2x" + 4 * "HHI")
_FLAG_PAIR = struct.Struct("=II")  # flags, mask
_HASHED = 0x2  # IP_VS_SVC_F_HASHED: the kernel's own
_MASQUERADING, _METHOD_MASK = 0, 0x7  # IP_VS_CONN_F_MASQ: translated by the node
_DIRECT = 3  # IP_VS_CONN_F_DROUTE: sent on as it is
_EVERY_BIT = 0xFFFFFFFF
_ONE_CLIENT = {Family.IPV4: b"\xff\xff\xff\xff", Family.IPV6: struct.pack("=I", 128)}
_NO_LENGTH = bytes(4)
_ADDRESS_BYTES = 16
_NOT_THERE = (errno.ENOENT, errno.ESRCH)  # a destination, a server


class Server(NamedTuple):
    """A virtual server: at an address, or of a firewall mark where that is not 0."""

    family: Family
    protocol: int = 0
    address: bytes = b""
    port: int = 0
    mark: int = 0

    def is_in(self, networks: Iterable[Network]) -> bool:
        """Say whether its address is in one of these networks; one of a mark is in none."""
        if not self.address:
            return False
        address = ipaddress.ip_address(self.address)
        return any(address in each for each in networks)


class Settings(NamedTuple):
    """How a virtual server chooses; `timeout_s` matters to a persistent one."""

    scheduler: str
    flags: int = 0
    timeout_s: int = 0


class Destination(NamedTuple):
    """An endpoint behind a virtual server."""

    address: bytes
    port: int


class Load(NamedTuple):
    """What a destination gets and has; `translated` says that its packets pass the node."""

    weight: int
    active: int
    inactive: int
    translated: bool


class Timeouts(NamedTuple):
    """How long connections are remembered that carry nothing, or that one side has closed."""

    tcp_s: int
    tcp_fin_s: int
    udp_s: int


class NoIpvs(BackendError):
    """The kernel has no ipvs, not even as a module that it could load."""

    REASON = "the kernel has no ip_vs"
    REMEDY = "load the kernel module: modprobe ip_vs"

    def __init__(self, doing: str) -> None:
        super().__init__(doing, f"{self.REASON}; {self.REMEDY}", transient=False)


class VirtualServers:
    """A socket to the kernel's ipvs in this network namespace. Any call may raise BackendError."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._netlink = Netlink(doing, _GENERIC)
        try:
            self._kind = self._family_id()
        except BaseException:
            self._netlink.close()
            raise

    def __enter__(self) -> VirtualServers:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def servers(self) -> list[tuple[Server, Settings]]:
        """Return all virtual servers of both families, whoever made them."""
        self._netlink.send(self._message(_GET_SERVER, DUMP))
        return [_server(attributes(answer)) for answer in self._netlink.answers()]

    def destinations(self, server: Server) -> list[tuple[Destination, Load]]:
        """Return what is behind a virtual server, nothing if it is gone."""
        self._netlink.send(self._message(_GET_DESTINATION, DUMP, _key(server)))
        return [_destination(server, attributes(each)) for each in self._netlink.answers()]

    def put_servers(self, servers: Iterable[tuple[Server, Settings]]) -> None:
        """Make virtual servers, or let those that exist choose so."""
        wanted = [_key(each, _settings(how, _ONE_CLIENT[each.family])) for each, how in servers]
        self._put(_NEW_SERVER, _SET_SERVER, wanted)

    def make_servers(self, servers: Sequence[tuple[Server, Settings]]) -> list[Server]:
        """Make virtual servers; return those that exist already, which stay as they are."""
        wanted = [_key(each, _settings(how, _ONE_CLIENT[each.family])) for each, how in servers]
        return [servers[place][0] for place in self._existing(_NEW_SERVER, wanted)]

    def put_destinations(
        self, destinations: Iterable[tuple[Server, Destination]], *, weight: int
    ) -> None:
        """Put destinations behind virtual servers; those that are there get the weight."""
        self._put(_NEW_DESTINATION, _SET_DESTINATION, _pairs(destinations, weight))

    def let_pass(self, servers: Iterable[Server]) -> None:
        """Let virtual servers at addresses send on, as it is, what no other destination takes.

        Each gets itself for a destination, with `passage` as its place.
        """
        passing = ((each, passage(each)) for each in servers)
        self._put(_NEW_DESTINATION, _SET_DESTINATION, _pairs(passing, 1, method=_DIRECT))

    def drain(self, destinations: Iterable[tuple[Server, Destination]]) -> None:
        """Let destinations take no new connections, as far as they are there."""
        self._remove(_SET_DESTINATION, _pairs(destinations, 0))

    def delete_destinations(self, destinations: Iterable[tuple[Server, Destination]]) -> None:
        """Remove destinations, as far as they are there."""
        self._remove(_DELETE_DESTINATION, _pairs(destinations, 0))

    def delete_servers(self, servers: Iterable[Server]) -> None:
        """Remove virtual servers with all behind them, as far as they are there."""
        self._remove(_DELETE_SERVER, list(map(_key, servers)))

    def timeouts(self) -> Timeouts:
        """Return the timeouts; 0 for a protocol that this kernel's ipvs lacks."""
        self._netlink.send(self._message(_GET_CONFIGURATION, 0))
        found = attributes(next(self._netlink.answers()))
        return Timeouts(*(_number(found.get(each, b"")) for each in (_TCP, _TCP_FIN, _UDP)))

    def set_timeouts(self, wanted: Timeouts) -> None:
        """Set the timeouts; one of 0 stays as it is."""
        pairs = zip((_TCP, _TCP_FIN, _UDP), wanted, strict=True)
        content = b"".join(_word(kind, seconds) for kind, seconds in pairs)
        for _, code in self._failures(_SET_CONFIGURATION, [content]):
            raise self._netlink.refusal(code)

    def has_scheduler(self, name: str) -> bool:
        """Say whether virtual servers can choose so; the kernel loads the module for it.

        Makes none: a server whose clients have addresses of no length is refused, but not before
        its scheduler was found (ip_vs_add_service). Only where ipvs lacks IPv6 nobody can say.
        """
        nobody = Server(Family.IPV6, protocol=socket.IPPROTO_TCP, port=1)
        content = _key(nobody, _settings(Settings(name), _NO_LENGTH))
        for _, code in self._failures(_NEW_SERVER, [content]):
            if code not in (errno.ENOENT, errno.EINVAL, errno.EAFNOSUPPORT):
                raise self._netlink.refusal(code)
            return code != errno.ENOENT
        return True

    def _put(self, new: int, change: int, wanted: Sequence[bytes]) -> None:
        existing = [wanted[place] for place in self._existing(new, wanted)]
        for _, code in self._failures(change, existing):
            raise self._netlink.refusal(code)

    def _existing(self, new: int, wanted: Sequence[bytes]) -> list[int]:
        """Make what is wanted; return the places of what exists already."""
        existing = []
        for place, code in self._failures(new, wanted):
            if code != errno.EEXIST:
                raise self._netlink.refusal(code)
            existing.append(place)
        return existing

    def _remove(self, command: int, contents: Iterable[bytes]) -> None:
        for _, code in self._failures(command, contents):
            if code not in _NOT_THERE:
                raise self._netlink.refusal(code)

    def _failures(self, command: int, contents: Iterable[bytes]) -> Iterator[tuple[int, int]]:
        header = _GENERIC_HEADER.pack(command, _VERSION, 0)
        return self._netlink.failures(self._kind, 0, (header + each for each in contents))

    def _message(self, command: int, flags: int, content: bytes = b"") -> bytes:
        header = _GENERIC_HEADER.pack(command, _VERSION, 0)
        return message(self._kind, REQUEST | flags, header + content)

    def _family_id(self) -> int:
        """Return the number of ipvs; the kernel loads its module for that, if it has one."""
        header = _GENERIC_HEADER.pack(_GET_FAMILY, _VERSION, 0)
        name = text_attribute(_FAMILY_NAME, "IPVS")
        self._netlink.send(message(_CONTROLLER, REQUEST | ACK, header + name))
        try:
            answer = next(self._netlink.answers())
        except NetlinkRefusal as error:
            if error.number == errno.ENOENT:
                raise NoIpvs(self._doing) from error
            raise
        self._netlink.status()
        return int.from_bytes(attributes(answer)[_FAMILY_ID], sys.byteorder)


def passage(server: Server) -> Destination:
    """Return the destination that stands for the virtual server itself."""
    return Destination(server.address, server.port)


def _key(server: Server, settings: bytes = b"") -> bytes:
    content = _word(_AF, AF[server.family], width=2)
    if server.mark:
        content += _word(_MARK, server.mark)
    else:
        content += _word(_PROTOCOL, server.protocol, width=2)
        content += attribute(_ADDRESS, server.address.ljust(_ADDRESS_BYTES, b"\0"))
        content += attribute(_PORT, server.port.to_bytes(2, "big"))
    return attribute(_SERVER | NESTED, content + settings)


def _settings(settings: Settings, netmask: bytes) -> bytes:
    return (
        text_attribute(_SCHEDULER, settings.scheduler)
        + attribute(_FLAGS, _FLAG_PAIR.pack(settings.flags, _EVERY_BIT & ~_HASHED))
        + _word(_TIMEOUT, settings.timeout_s)
        + attribute(_NETMASK, netmask)
    )


def _pairs(
    pairs: Iterable[tuple[Server, Destination]], weight: int, *, method: int = _MASQUERADING
) -> list[bytes]:
    """Return what names destinations and their servers, quickly: there are very many."""
    length = _PAIR.size
    wanted: list[bytes] = []
    before: Server | None = None
    key = b""
    for server, destination in pairs:
        if server != before:
            before, key = server, _key(server)
        content = _PAIR.pack(
            *(length, _DESTINATION | NESTED),
            *(4 + _ADDRESS_BYTES, _D_ADDRESS, destination.address),
            *(6, _D_PORT, destination.port.to_bytes(2, "big")),
            *(8, _D_METHOD, method),
            *(8, _D_WEIGHT, weight),
            *(8, _D_UPPER, 0),
            *(8, _D_LOWER, 0),
        )
        wanted.append(key + content)
    return wanted


def _server(answer: Attributes) -> tuple[Server, Settings]:
    found = attributes(answer[_SERVER])
    family = Family.IPV4 if _number(found[_AF]) == AF[Family.IPV4] else Family.IPV6
    flags, _ = _FLAG_PAIR.unpack_from(found[_FLAGS])
    persistent_s = _number(found[_TIMEOUT])
    settings = Settings(text(found[_SCHEDULER]), flags & ~_HASHED, persistent_s)
    if _MARK in found:
        return Server(family, mark=_number(found[_MARK])), settings
    address = found[_ADDRESS][: family.bits // 8]
    port = int.from_bytes(found[_PORT], "big")
    return Server(family, _number(found[_PROTOCOL]), address, port), settings


def _destination(server: Server, answer: Attributes) -> tuple[Destination, Load]:
    found = attributes(answer[_DESTINATION])
    destination = Destination(
        found[_D_ADDRESS][: server.family.bits // 8], int.from_bytes(found[_D_PORT], "big")
    )
    return destination, Load(
        weight=_number(found[_D_WEIGHT]),
        active=_number(found[_D_ACTIVE]),
        inactive=_number(found[_D_INACTIVE]),
        translated=_number(found[_D_METHOD]) & _METHOD_MASK == _MASQUERADING,
    )


def _word(kind: int, value: int, *, width: int = 4) -> bytes:
    return attribute(kind, value.to_bytes(width, sys.byteorder))


def _number(content: bytes) -> int:
    return int.from_bytes(content, sys.byteorder)
