"""Sockets bound the way Go binds them, so that the same addresses are reachable."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import NamedTuple

from kproxy.core.addresses import endpoint_text

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Address(NamedTuple):
    """An IP address and a port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return endpoint_text(self.host, self.port)


def bind_one_family(address: Address) -> socket.socket:
    """Bind to an address of one family; `::` then means IPv6 alone. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return _bind(address, family, ipv6_only=True)


def bind_any_family(address: Address) -> socket.socket:
    """Bind; an unspecified address of either family means every address of both.

    Where the kernel has no IPv6 it means every IPv4 address. Raises OSError.
    """
    if not ipaddress.ip_address(address.host).is_unspecified:
        return bind_one_family(address)
    try:
        return _bind(Address("::", address.port), socket.AF_INET6, ipv6_only=False)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _bind(Address("0.0.0.0", address.port), socket.AF_INET, ipv6_only=False)


def _bind(address: Address, family: socket.AddressFamily, *, ipv6_only: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
