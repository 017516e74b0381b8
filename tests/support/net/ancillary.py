"""Socket calls that carry addresses and errors beside the data."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

# From Linux' linux/in.h, linux/in6.h and asm-generic/socket.h; Python 3.11 does not name them.
IP_PKTINFO = 8
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_RCVBUFFORCE = 33

Received = TypeVar("Received")


def drained(receive: Callable[[], Received]) -> Iterator[Received]:
    """Yield what a non-blocking call returns until it would block."""
    while True:
        try:
            yield receive()
        except BlockingIOError:
            return


def ask_for_destination(sock: socket.socket) -> None:
    """Make `recvmsg` tell to which of our addresses a packet came."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def destination_of(ancillary: list[tuple[int, int, bytes]]) -> str:
    """Return the address that a received packet was for."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return socket.inet_ntop(socket.AF_INET, data[8:12])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return socket.inet_ntop(socket.AF_INET6, data[:16])
    raise ValueError("the kernel did not tell the destination")


def from_address(address: str) -> tuple[int, int, bytes]:
    """Return the ancillary data that makes a packet leave from one of our addresses."""
    if ":" in address:
        data = socket.inet_pton(socket.AF_INET6, address) + struct.pack("@I", 0)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, data
    data = struct.pack("@I4s4s", 0, socket.inet_pton(socket.AF_INET, address), bytes(4))
    return socket.IPPROTO_IP, IP_PKTINFO, data


def ask_for_errors(sock: socket.socket) -> None:
    """Make the kernel queue each ICMP error together with the packet that it is about."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def is_port_unreachable(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Say whether a queued error is an ICMP port unreachable (struct sock_extended_err)."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR):
            return data[5:7] == bytes((3, 3))
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_RECVERR):
            return data[5:7] == bytes((1, 4))
    return False
