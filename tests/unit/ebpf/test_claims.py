"""Which bits stand for networks of addresses that may be ours."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping

import pytest

from backends.ebpf.driver.claims import Claims
from kproxy.core.addresses import Family

WORDS, PREFIXES = 16384, 1 << 16


class Bits:
    """The map of claims, in memory."""

    def __init__(self) -> None:
        self._words = dict.fromkeys(range(WORDS + PREFIXES // 64 + 1), 0)

    def raw_parts(self) -> Iterator[tuple[bytearray, bytearray]]:
        for number, word in self._words.items():
            yield bytearray(struct.pack("=I", number)), bytearray(struct.pack("=QQ", word, 0))

    def update_many(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            (number,), (word, _) = struct.unpack("=I", key), struct.unpack("=QQ", value)
            assert word & self._words[number] == self._words[number], "a claim was taken back"
            self._words[number] = word

    def set(self) -> set[int]:
        """Return the positions of all bits that are set."""
        return {
            64 * n + bit for n, word in self._words.items() for bit in range(64) if word >> bit & 1
        }


def claimed(family: Family, *networks: str) -> set[int]:
    """Return which prefixes are claimed with some networks."""
    bits = Bits()
    claims = Claims(family, bits)
    parsed = [ipaddress.ip_network(network) for network in networks]
    claims.add_networks((n.network_address.packed, n.prefixlen) for n in parsed)
    return {position - 64 * WORDS for position in bits.set()}


@pytest.mark.parametrize(
    ("network", "prefixes"),
    [
        ("10.96.0.0/16", {0x0A60}),
        ("10.96.1.0/24", {0x0A60}),
        ("10.96.0.0/12", set(range(0x0A60, 0x0A70))),
        ("127.0.0.0/8", set(range(0x7F00, 0x8000))),
        ("0.0.0.0/0", set(range(PREFIXES))),
    ],
)
def test_a_network_of_ipv4_is_claimed_by_its_first_bits(network: str, prefixes: set[int]):
    assert claimed(Family.IPV4, network) == prefixes


def test_a_network_of_ipv6_is_claimed_by_half_an_address_or_with_all_others():
    one = claimed(Family.IPV6, "fd00:96::/112")

    assert len(one) == 1
    assert claimed(Family.IPV6, "fd00:96::/108", "fd00:96::/64") == one
    assert claimed(Family.IPV6, "fd00:97::/112") != one
    assert claimed(Family.IPV6, "fd00::/48") == set(range(PREFIXES))


def test_claims_are_made_anew_on_what_is_there():
    bits = Bits()
    address = ipaddress.ip_address("10.1.2.3").packed
    Claims(Family.IPV4, bits).add([address])
    before = bits.set()

    later = Claims(Family.IPV4, bits)
    later.add([address])
    assert bits.set() == before
    later.complete()
    assert bits.set() - before == {64 * WORDS + PREFIXES}
