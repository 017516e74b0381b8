"""Addresses and networks have one form each, however they were written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import (
    canonical_address,
    canonical_network,
    endpoint_text,
    is_loopback,
    is_of_the_node,
    is_special,
    is_zero,
)
from tests.support.effort import examples


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.004", "1.2.3.4"),
        ("010.0000.00.001", "10.0.0.1"),
        ("FD00:0:0::1", "fd00::1"),
        ("fd00:0000:0000:0000:0000:0000:0000:0001", "fd00::1"),
        ("::FFFF:1.2.3.4", "1.2.3.4"),
        ("::ffff:102:304", "1.2.3.4"),
    ],
)
def test_an_address_has_one_form(written, canonical):
    assert canonical_address(written) == canonical


@pytest.mark.parametrize(
    "text",
    ["", " 1.2.3.4", "1.2.3", "1.2.3.256", "1.2.3.4.5", "1.2.3.4/32", "fe80::1%eth0", "web",
     "1.2.3.4\n", "0x1.2.3.4", "\u0661.2.3.4", "-1.2.3.4", "1234", "fd00:::1", "::ffff:1.2.3.256"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        canonical_address(text)


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.1.2.3/08", "10.0.0.0/8"),
        ("1.2.3.4/32", "1.2.3.4/32"),
        ("FD00::1/64", "fd00::/64"),
        ("::/0", "::/0"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::FFFF:0a01:0203/128", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/96", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/95", "::fffe:0:0/95"),
        ("::ffff:10.0.0.0/8", "::/8"),
    ],
)
def test_a_network_loses_its_host_bits(written, network):
    assert canonical_network(written) == ipaddress.ip_network(network)


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/-1", "10.0.0.0/8/8",
     "10.0.0.0/²", "fd00::/129", "::ffff:10.0.0.0/129", "fe80::1%eth0/64", "/8", "10.0.0.0/ 8"],
)  # fmt: skip
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        canonical_network(text)


@examples(100)
@given(st.ip_addresses())
def test_special_addresses_are_those_that_the_library_calls_so(address):
    """Text is compared where an object would cost a microsecond for each of 100,000 endpoints."""
    multicast = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    special = (
        address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address in ipaddress.ip_network(multicast)
    )
    text = canonical_address(str(address))
    if text == str(address):
        assert is_special(text) == special
        assert is_loopback(text) == address.is_loopback


@pytest.mark.parametrize(
    ("address", "special"),
    [
        ("0.0.0.0", True),
        ("0.0.0.1", False),
        ("127.0.0.0", True),
        ("127.255.255.255", True),
        ("12.7.0.1", False),
        ("169.253.255.255", False),
        ("169.254.0.0", True),
        ("169.255.0.0", False),
        ("224.0.0.255", True),
        ("224.0.1.0", False),
        ("::", True),
        ("::1", True),
        ("::2", False),
        ("fe7f::1", False),
        ("fe80::1", True),
        ("febf::1", True),
        ("fec0::1", False),
        ("fe8::1", False),
        ("ff02::1", True),
        ("ff05::1", False),
    ],
)
def test_the_borders_of_special_addresses(address, special):
    assert is_special(address) is special
    link_local = address.startswith(("169.254.", "fe8", "feb"))
    assert is_of_the_node(address) is (special and not link_local)
    assert is_zero(address) is (address in ("0.0.0.0", "::"))


def test_an_endpoint_of_ipv6_is_written_in_brackets():
    assert endpoint_text("10.0.0.1", 80) == "10.0.0.1:80"
    assert endpoint_text("fd00::1", 80) == "[fd00::1]:80"
