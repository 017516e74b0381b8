"""A node with one address of each family, and the link of ipvs mode as its tests want it."""

from __future__ import annotations

import pytest

from backends.ipvs.driver.link import LINK, TABLE
from backends.ipvs.render.entries import STEERING, address_key, packed, steered_key
from backends.ipvs.render.marks import STEERED
from kproxy.core.addresses import Family
from kproxy.core.image import diff
from tests.support.iptables.applied import run
from tests.support.waiting import LONGEST_S, until

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
OTHER = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:7::1"}
ROUTER = {Family.IPV4: "198.51.100.254", Family.IPV6: "2001:db8:7::fe"}
VIPS = {Family.IPV4: ("172.30.0.1", "172.30.0.2"), Family.IPV6: ("fd00:30::1", "fd00:30::2")}
LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
RULE = f"fwmark {STEERED:#x}/{STEERED:#x} lookup {TABLE}"
MORE_THAN_ANY_BUFFER_HOLDS = 20_000


def ip(family, command):
    """Run ip(8) for a family."""
    return run(f"ip {'-4' if family is Family.IPV4 else '-6'} {command}")


def routes(family):
    """What leads to the link, a line each."""
    return ip(family, f"route show table all dev {LINK} type local").splitlines()


def rules_to_table(family):
    """What the rules that lead to our table ask for."""
    lines = ip(family, "rule show").splitlines()
    return [line.split("from all ")[-1].strip() for line in lines if f"lookup {TABLE}" in line]


def own(family, address, verb="add", device="uplink"):
    """Give the node an address of its own, or take it away."""
    length = 24 if family is Family.IPV4 else 64
    rest = "nodad" if family is Family.IPV6 and verb == "add" else ""
    ip(family, f"address {verb} {address}/{length} dev {device} {rest}")
    # The kernel takes an IPv6 address into use, and tells of it, in a thread of its own.
    until(lambda: not ip(family, "address show tentative"), within_s=LONGEST_S, what="in use")


def wanted(family, source=None):
    """The image of a link with each of the addresses on it, one of them for steered packets."""
    value = packed(source or NODE[family])
    image = {address_key(vip): value for vip in VIPS[family]}
    return image | {steered_key(LOAD_BALANCER[family]): b"", STEERING: b""}


def filled(link, family):
    """Make a link hold what is wanted."""
    link.put(diff(link.observe(), wanted(family)))
    assert link.observe() == wanted(family)


def other_than(family):
    """The other family."""
    return next(each for each in Family if each is not family)
