"""IP addresses and networks in the one form that the rest of the core compares as text."""

from __future__ import annotations

import enum
import ipaddress
import re

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_CANONICAL_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}", re.ASCII)
_SLOPPY_IPV4 = re.compile(r"0*(\d{1,3})\.0*(\d{1,3})\.0*(\d{1,3})\.0*(\d{1,3})", re.ASCII)
_SPECIAL_IPV4 = r"0\.0\.0\.0$|127\.|169\.254\.|224\.0\.0\."
_SPECIAL = re.compile(rf"{_SPECIAL_IPV4}|::1?$|fe[89ab][0-9a-f]:|ff[0-9a-f]2:")
_OF_THE_NODE = re.compile(r"0\.0\.0\.0$|127\.|224\.0\.0\.|::1?$|ff[0-9a-f]2:")
_ORDINARY_IPV4 = re.compile(rf"(?!{_SPECIAL_IPV4}){_CANONICAL_IPV4.pattern}", re.ASCII)
_MAPPED_BITS = 96  # what comes before the IPv4 address in ::ffff:a.b.c.d

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Family(enum.Enum):
    """An IP family, by the name that the API and the metrics give it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    __hash__ = object.__hash__  # an Enum's own is written in Python

    @property
    def bits(self) -> int:
        """The width of an address in bits."""
        return 32 if self is Family.IPV4 else 128


def canonical_address(text: str) -> str:
    """Return `text` in canonical form (RFC 5952 for IPv6), leading zeros of IPv4 parts dropped.

    An IPv4 address written as ::ffff:a.b.c.d becomes a.b.c.d, as upstream reads it.
    Raises ValueError if `text` is no address; a zone (`%eth0`) is no part of one here.
    """
    if _CANONICAL_IPV4.fullmatch(text):
        return text
    if "%" in text:
        raise ValueError("an address with a zone cannot be used")
    sloppy = _SLOPPY_IPV4.fullmatch(text)
    if sloppy:
        return str(ipaddress.IPv4Address(".".join(sloppy.groups())))
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def canonical_network(text: str) -> Network:
    """Return the network that `text` names (CIDR notation), host bits cleared.

    ::ffff:a.b.c.d/96 and longer is an IPv4 network, as upstream reads it, /104 being its /8.
    Raises ValueError if it is not `address/length`.
    """
    written, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit():
        raise ValueError("not in CIDR notation (address/length)")
    address, bits = canonical_address(written), int(length)
    if ":" in written and ":" not in address:
        if bits >= _MAPPED_BITS:
            bits -= _MAPPED_BITS
        else:
            address = f"::ffff:{address}"
    return ipaddress.ip_network((address, bits), strict=False)


def family_of(address: str) -> Family:
    """Return the family of a canonical address."""
    return Family.IPV6 if ":" in address else Family.IPV4


def family_of_network(network: Network) -> Family:
    """Return the family of a network."""
    return Family.IPV4 if network.version == 4 else Family.IPV6


def is_loopback(address: str) -> bool:
    """Say whether a canonical address is in 127.0.0.0/8 or is ::1."""
    return address.startswith("127.") or address == "::1"


def is_special(address: str) -> bool:
    """Say whether a canonical address is zero, loopback, link-local or link-local multicast.

    The API takes none of these for an endpoint or an external IP.
    """
    return _SPECIAL.match(address) is not None


def is_zero(address: str) -> bool:
    """Say whether a canonical address is the one that means none."""
    return address in ("0.0.0.0", "::")


def is_of_the_node(address: str) -> bool:
    """Say whether a canonical address is zero, loopback or link-local multicast.

    What is sent there is between the node and itself or its links, whoever else claims it.
    """
    return _OF_THE_NODE.match(address) is not None


def is_ordinary_ipv4(text: str) -> bool:
    """Say whether `text` is an IPv4 address, canonical and not special: the usual case, at once."""
    return _ORDINARY_IPV4.fullmatch(text) is not None


def endpoint_text(address: str, port: int) -> str:
    """Return `ip:port`, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
