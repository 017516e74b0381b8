"""Which source address MASQUERADE picks, by the kernel's rules."""

from ipaddress import ip_address, ip_interface

import pytest

from backends.ebpf.driver.masquerade import choices
from backends.kernel.addresses import AddressFlag, InterfaceAddress
from kproxy.core.addresses import Family

UPLINK, OTHER, BARE, ANY = 2, 3, 4, 0
LINK_SCOPE, HOST_SCOPE = 253, 254


def address(device, text, *, flags=0, scope=0, peer=None):
    own = ip_interface(text)
    network = ip_interface(peer or text)
    return InterfaceAddress(
        device, own.ip.packed, network.ip.packed, network.network.prefixlen, scope, flags
    )


def chosen(family, addresses, device, towards):
    """Return what the table says of a destination, by the longest prefix that has it."""
    table = choices(family, addresses, device) or choices(family, addresses, ANY)
    destination = int(ip_address(towards))
    found = {
        length: value
        for (length, network), value in table.items()
        if destination >> family.bits - length == int.from_bytes(network) >> family.bits - length
    }
    return str(ip_address(found[max(found)])) if found else None


V4_ONE = "192.0.2.1/25"
V4 = [
    address(1, "127.0.0.1/8", scope=HOST_SCOPE),
    address(UPLINK, "169.254.1.1/16", scope=LINK_SCOPE),
    address(UPLINK, V4_ONE),
    address(UPLINK, "192.0.2.9/25", flags=AddressFlag.SECONDARY),
    address(UPLINK, "198.51.100.1/24"),
    address(UPLINK, "198.51.100.129/25"),
    address(OTHER, "203.0.113.1/32", peer="10.9.9.9/32"),
]


@pytest.mark.parametrize(
    ("device", "next_hop", "source", "why"),
    [
        (UPLINK, "192.0.2.100", "192.0.2.1", "the address in its network, and no secondary one"),
        (UPLINK, "198.51.100.7", "198.51.100.1", "the address in its network"),
        (UPLINK, "198.51.100.200", "198.51.100.1", "the first whose network has it"),
        (UPLINK, "10.0.0.1", "192.0.2.1", "else the first of global scope"),
        (OTHER, "10.9.9.9", "203.0.113.1", "the end of a point-to-point link"),
        (OTHER, "10.9.9.8", "203.0.113.1", "the only one"),
        (BARE, "10.0.0.1", "192.0.2.1", "a device without address: that of another"),
        (1, "127.0.0.2", "192.0.2.1", "what loopback has is of no use elsewhere"),
    ],
)
def test_ipv4_goes_by_the_next_hop(device, next_hop, source, why):
    assert chosen(Family.IPV4, V4, device, next_hop) == source, why


V6 = [
    address(1, "::1/128", scope=HOST_SCOPE),
    address(UPLINK, "2001:db8:1::1/64"),
    address(UPLINK, "2001:db8:1::beef/64", flags=AddressFlag.SECONDARY),
    address(UPLINK, "fd00:1::1/64"),
    address(UPLINK, "2001:db8:3::1/64", flags=AddressFlag.DEPRECATED),
    address(UPLINK, "fe80::1/64", scope=LINK_SCOPE),
    address(OTHER, "2001:db8:2::1/64"),
    address(OTHER, "2001:db8:4::1/64", flags=AddressFlag.TENTATIVE),
    address(BARE, "fe80::2/64", scope=LINK_SCOPE),
]


@pytest.mark.parametrize(
    ("device", "destination", "source", "why"),
    [
        (UPLINK, "2001:db8:9::1", "2001:db8:1::1", "the label of global addresses"),
        (UPLINK, "fd00:1::7", "fd00:1::1", "the label of unique local ones"),
        (UPLINK, "fdff::7", "fd00:1::1", "the same, in another network"),
        (UPLINK, "2001:db8:2::7", "2001:db8:1::1", "the device comes before the prefix"),
        (UPLINK, "2001:db8:3::7", "2001:db8:1::1", "a deprecated one is not preferred"),
        (OTHER, "2001:db8:4::7", "2001:db8:2::1", "a tentative one cannot be used"),
        (OTHER, "fd00:1::7", "2001:db8:2::1", "the device comes before the label"),
        (BARE, "2001:db8:2::7", "2001:db8:2::1", "of other devices' the longest prefix"),
        (BARE, "2001:db8:1::7", "2001:db8:1::1", "of other devices' the longest prefix"),
        (BARE, "fd00:2::7", "fd00:1::1", "of other devices' the label"),
    ],
)
def test_ipv6_goes_by_the_destination(device, destination, source, why):
    assert chosen(Family.IPV6, V6, device, destination) == source, why


def test_the_length_of_the_own_network_limits_what_counts_as_common():
    pair = [address(UPLINK, "2001:db8:0:1::1/48"), address(UPLINK, "2001:db8:0:2::1/64")]
    assert chosen(Family.IPV6, pair, UPLINK, "2001:db8:0:1::9") == "2001:db8:0:2::1"  # 62 bits
    assert chosen(Family.IPV6, pair, UPLINK, "2001:db9::9") == "2001:db8:0:1::1"  # a tie
    assert chosen(Family.IPV6, pair, UPLINK, "2001:db8:0:2::9") == "2001:db8:0:2::1"


def test_a_label_comes_before_a_longer_prefix():
    pair = [address(UPLINK, "2002:1::1/32"), address(UPLINK, "2001:db8::1/64")]
    assert chosen(Family.IPV6, pair, UPLINK, "2003::9") == "2001:db8::1"


def test_a_secondary_address_is_never_chosen():
    pair = [address(UPLINK, "192.0.2.9/24", flags=AddressFlag.SECONDARY), address(UPLINK, V4_ONE)]
    assert chosen(Family.IPV4, pair, UPLINK, "192.0.2.7") == "192.0.2.1"


def test_a_deprecated_address_serves_where_there_is_no_other():
    only = [address(UPLINK, "2001:db8::1/64", flags=AddressFlag.DEPRECATED)]
    assert chosen(Family.IPV6, only, UPLINK, "2001:db8:5::1") == "2001:db8::1"


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_a_node_without_addresses_has_none_to_give(family):
    assert choices(family, [], ANY) == {}
    assert choices(family, [], UPLINK) == {}


def test_a_table_is_as_small_as_its_choices_allow():
    many = [address(UPLINK, f"2001:db8::{each:x}/64") for each in range(1, 200)]
    assert len(choices(Family.IPV6, many, UPLINK)) == 1
