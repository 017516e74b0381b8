"""A VPN's native nf_tables rules stand in iptables' tables; every command works beside them."""

from __future__ import annotations

import pytest

from backends.kernel import nft
from kproxy.core.addresses import Family
from tests.kernel.faults.test_takeover import leave_kube_proxys
from tests.support.net.plan import CLIENT, NODE, POD1, POD3
from tests.support.node.cluster import both
from tests.support.node.node import Node
from tests.support.packets.objects import port

pytestmark = pytest.mark.kernel

# iptables-nft-save ends with exit code 3 at the first of these.
VPN = """
add rule FAMILY filter FORWARD meta mark set meta mark and 0xff00ffff xor 0x00040000
add rule FAMILY nat PREROUTING meta mark set meta mark and 0xff00ffff xor 0x00040000
add rule FAMILY nat POSTROUTING meta mark & 0x00ff0000 == 0x00080000 accept
"""
_MARKS = ("0x00040000", "0x00080000", "udp dport 9 ")
WEB = both("web", "10.96.0.7", POD1, ports=(port(80, node_port=30080),))
SERVED = {"10.96.0.7:80": frozenset({POD1}), f"{NODE}:30080": frozenset({POD1})}
SOURCES = (CLIENT, POD3)
AUTO = ("--iptables-variant", "auto")


@pytest.fixture
def variant():
    return "nft"


@pytest.fixture
def vpn(node):
    """A node with those rules; what nft shows of the tables before anybody else wrote to them."""
    node.manifests.put("web", WEB)
    for family in Family:
        for table, base in (("filter", "FORWARD"), ("nat", "PREROUTING"), ("nat", "POSTROUTING")):
            node.iptables(family, f"-t {table} -A {base} -p udp --dport 9 -j RETURN")
        node.run("nft -f -", text=VPN.replace("FAMILY", nft.FAMILY_NAME[family]))
    return node


def theirs(node: Node) -> list[str]:
    """Return the rules that stood there first, with their handles."""
    listed = node.run("nft -a list ruleset").splitlines()
    return sorted(line for line in listed if any(mark in line for mark in _MARKS))


def test_it_starts_serves_and_cleans_up_with_the_variant_that_it_found(vpn):
    before = theirs(vpn)
    proxy = vpn.ready(*AUTO)
    assert "IPv4: writing rules with iptables nft" in proxy.said()
    assert vpn.answers(SERVED, sources=SOURCES) == []
    assert proxy.stop() == 0
    cleaning = vpn.kproxy("cleanup")
    assert cleaning.ended() == 0, cleaning.said()
    assert "KPROXY" not in vpn.run("nft list ruleset")
    assert theirs(vpn) == before


def test_it_takes_over(vpn):
    before = theirs(vpn)
    leave_kube_proxys(vpn)
    proxy = vpn.ready(*AUTO, "--take-over")
    assert "KUBE-" not in vpn.run("nft list ruleset")
    assert theirs(vpn) == before
    assert vpn.answers(SERVED, sources=SOURCES) == []
    assert "refused" not in proxy.said()


def test_the_host_check_finds_nothing_wrong(vpn):
    checking = vpn.kproxy("check", "--proxy-mode", "iptables")
    assert checking.ended() == 0, checking.said()
    assert "table nat: holds rules that iptables cannot show" in checking.said()
