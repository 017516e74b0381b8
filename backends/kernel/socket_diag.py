"""TCP and UDP sockets by sock_diag: which are connected whereto, and their end by force.

Layouts: linux/sock_diag.h, linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from backends.kernel.netlink import ACK, DUMP, REQUEST, Netlink, NetlinkProtocol, message
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol

_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, up to the socket's identity
_IDENTITY = struct.Struct("=2s2s16s16sI8s")  # struct inet_diag_sockid
_MESSAGE = struct.Struct("=4x48s16xI")  # struct inet_diag_msg
_SOCKETS = NetlinkProtocol(_DIAG, _MESSAGE.size)
_NUMBER = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
# States with a peer (net/tcp_states.h): of UDP it is TCP_ESTABLISHED alone.
_CONNECTED = {
    Protocol.TCP: sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11)),
    Protocol.UDP: 1 << 1,
}
_ANY_STATE = 0xFFFFFFFF
_MAPPED = bytes(10) + b"\xff\xff"


class ConnectedSocket(NamedTuple):
    """A connected socket. Addresses and ports are in network order, by the packets' family.

    `cookie` is the kernel's number of it, which no other socket ever gets.
    """

    cookie: int
    source: bytes
    source_port: int
    peer: bytes
    peer_port: int
    identity: bytes
    socket_family: int
    protocol: Protocol


def connected(family: Family, protocol: Protocol) -> Iterator[ConnectedSocket]:
    """Yield the sockets of this network namespace that send packets of a family to one peer.

    Of TCP, those too that wait for an answer or were closed by one side, but none that lost its
    owner, and lives on to say goodbye.

    Those of IPv6 with an IPv4-mapped peer count as IPv4. Raises BackendError.
    """
    yield from _listed(socket.AF_INET6, family, protocol)
    if family is Family.IPV4:
        yield from _listed(socket.AF_INET, family, protocol)


def destroy(found: ConnectedSocket) -> bool:
    """End a socket: its owner's calls fail with ECONNABORTED. Say whether it was still there.

    Raises BackendError: EOPNOTSUPP where the kernel is built without INET_DIAG_DESTROY.
    """
    number = _NUMBER[found.protocol]
    body = _REQUEST.pack(found.socket_family, number, 0, _ANY_STATE) + found.identity
    with Netlink("destroying a socket", _SOCKETS) as netlink:
        netlink.send(message(_DESTROY, REQUEST | ACK, body))
        code = netlink.status()
        if code not in (0, errno.ENOENT):
            raise netlink.refusal(code)
    return not code


def _listed(socket_family: int, family: Family, protocol: Protocol) -> Iterator[ConnectedSocket]:
    wanted = _REQUEST.pack(socket_family, _NUMBER[protocol], 0, _CONNECTED[protocol])
    body = wanted + bytes(_IDENTITY.size)
    with Netlink("listing sockets", _SOCKETS) as netlink:
        netlink.send(message(_BY_FAMILY, REQUEST | DUMP, body))
        for data, start, _ in netlink.parts():
            identity, inode = _MESSAGE.unpack_from(data, start - _MESSAGE.size)
            found = _parsed(identity, socket_family, protocol)
            if inode and len(found.peer) == family.bits // 8:
                yield found


def _parsed(identity: bytes, socket_family: int, protocol: Protocol) -> ConnectedSocket:
    source_port, peer_port, source, peer, _, cookie = _IDENTITY.unpack(identity)
    return ConnectedSocket(
        cookie=struct.unpack("=Q", cookie)[0],
        source=_address(source, socket_family),
        source_port=int.from_bytes(source_port, "big"),
        peer=_address(peer, socket_family),
        peer_port=int.from_bytes(peer_port, "big"),
        identity=identity,
        socket_family=socket_family,
        protocol=protocol,
    )


def _address(field: bytes, socket_family: int) -> bytes:
    if socket_family == socket.AF_INET:
        return field[:4]
    return field[len(_MAPPED) :] if field.startswith(_MAPPED) else field
