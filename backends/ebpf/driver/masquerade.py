"""Which source address the kernel's MASQUERADE gives to what leaves by a device. Pure.

IPv4 (inet_select_addr): of the device's primary addresses of global scope the first whose network
has the next hop, else the first; of another device where it has none. IPv6 (ipv6_dev_get_saddr):
the rules of RFC 6724, section 5, for the destination. They compare labels and prefixes, so one
answer holds for all destinations below a prefix, and a table of few prefixes holds them all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from backends.kernel.addresses import AddressFlag, InterfaceAddress
from kproxy.core.addresses import Family

Choices = dict[tuple[int, bytes], bytes]
"""The source address by prefix, which is its length and its bytes: the longest one decides."""

_GLOBAL_SCOPE = 0  # RT_SCOPE_UNIVERSE
_BITS = 128
_UNUSABLE = AddressFlag.TENTATIVE | AddressFlag.DUPLICATE
_NOT_PREFERRED = AddressFlag.DEPRECATED | AddressFlag.OPTIMISTIC

# The default policy table of the kernel (net/ipv6/addrlabel.c), the longest prefixes first.
_LABELS = sorted(
    (
        (network.prefixlen, int(network.network_address), label)
        for network, label in (
            (ipaddress.IPv6Network(text), label)
            for text, label in (
                *(("::1/128", 0), ("::/0", 1), ("2002::/16", 2), ("::/96", 3)),
                *(("::ffff:0:0/96", 4), ("fc00::/7", 5), ("2001::/32", 6)),
                *(("2001:10::/28", 7), ("fec0::/10", 11), ("3ffe::/16", 12)),
            )
        )
    ),
    reverse=True,
)


def choices(family: Family, addresses: Sequence[InterfaceAddress], device: int) -> Choices:
    """Return what is chosen at a device; nothing if what is chosen at any other holds there.

    `addresses` are those of all devices, in the kernel's order; 0 is a device without any.
    """
    usable = [each for each in addresses if _is_usable(family, each)]
    own = [each for each in usable if each.device == device]
    if not usable or (device and not own):
        return {}
    if family is Family.IPV4:
        return _ipv4(own) if own else _first(usable)
    return _ipv6(_pool(usable, own))


def _is_usable(family: Family, address: InterfaceAddress) -> bool:
    if address.scope != _GLOBAL_SCOPE:
        return False
    if family is Family.IPV4:
        return not address.flags & AddressFlag.SECONDARY
    return not address.flags & _UNUSABLE or bool(address.flags & AddressFlag.OPTIMISTIC)


def _first(addresses: Sequence[InterfaceAddress]) -> Choices:
    return {(0, bytes(len(each.address))): each.address for each in addresses[:1]}


def _ipv4(own: Sequence[InterfaceAddress]) -> Choices:
    found = _first(own)
    for each in own:
        network = ipaddress.IPv4Network((each.network, each.length), strict=False)
        earlier = (
            ipaddress.IPv4Network((address, length))
            for length, address in found
            if length  # the first network that has the next hop decides, not the smallest
        )
        if not any(network.subnet_of(other) for other in earlier):
            found.setdefault((each.length, network.network_address.packed), each.address)
    return found


def _pool(
    usable: Sequence[InterfaceAddress], own: Sequence[InterfaceAddress]
) -> Sequence[InterfaceAddress]:
    """Return those that preference and the device (rules 3 and 5) leave."""
    for candidates in (own, usable):
        if preferred := [each for each in candidates if not each.flags & _NOT_PREFERRED]:
            return preferred
    return own or usable


def _ipv6(pool: Sequence[InterfaceAddress]) -> Choices:
    # Of addresses in one network the first is chosen, but a temporary one last (rule 7).
    lasting = sorted(pool, key=lambda each: bool(each.flags & AddressFlag.SECONDARY))
    candidates: dict[tuple[int, int], int] = {}
    for each in lasting:
        value = int.from_bytes(each.address)
        candidates.setdefault((each.length, _prefix(value, each.length)), value)
    destinations = _destinations(candidates.values())
    found: Choices = {}
    for length, network in sorted(destinations):
        best = _best(candidates, destinations[length, network]).to_bytes(_BITS // 8)
        if _covering(found, length, network) != best:
            found[length, network.to_bytes(_BITS // 8)] = best
    return found


def _destinations(addresses: Iterable[int]) -> dict[tuple[int, int], int]:
    """Return the prefixes below which a choice may differ, each with a destination to try.

    That is one that differs from an address right behind the prefix.
    """
    found = {(length, network): network for length, network, _ in _LABELS}
    for address in addresses:
        for length in range(_BITS):
            found[length, _prefix(address, length)] = address ^ 1 << _BITS - 1 - length
    return found


def _best(candidates: dict[tuple[int, int], int], destination: int) -> int:
    """Return the candidate that labels and prefixes (rules 6 and 8) prefer, else the first."""
    label = _label(destination)

    def score(candidate: tuple[tuple[int, int], int]) -> tuple[bool, int]:
        (length, _), address = candidate
        return _label(address) == label, min(length, _in_common(address, destination))

    return max(candidates.items(), key=score)[1]


def _covering(found: Choices, length: int, network: int) -> bytes | None:
    """Return what the longest prefix so far says that has this one in it."""
    for shorter in range(length, -1, -1):
        above = found.get((shorter, _prefix(network, shorter).to_bytes(_BITS // 8)))
        if above is not None:
            return above
    return None


def _label(address: int) -> int:
    return next(label for length, network, label in _LABELS if _prefix(address, length) == network)


def _in_common(one: int, other: int) -> int:
    return _BITS - (one ^ other).bit_length()


def _prefix(address: int, length: int) -> int:
    return address >> _BITS - length << _BITS - length
