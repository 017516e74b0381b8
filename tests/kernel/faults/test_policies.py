"""What a policy engine closes stays closed, however our jumps came to where they stand."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.kernel.faults.test_takeover import leave_kube_proxys
from tests.support.net.plan import CLIENT, NODE, POD1, POD2, POD3
from tests.support.node import policies
from tests.support.node.cluster import both
from tests.support.node.node import IPTABLES, REFUSED, SILENT, Node
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

SHOP = (
    *both("closed", "10.96.0.20", POD1, ports=(port(80, node_port=30020),)),
    *both("open", "10.96.0.21", POD2, ports=(port(80, node_port=30021),)),
    *both("idle", "10.96.0.22", ports=(port(80, node_port=30022),)),
)
# The engine's ICMP answer is no answer yet to a TCP client over IPv6.
CLOSED = frozenset({REFUSED, SILENT})
# From outside every NodePort is masqueraded, and so accepted by KPROXY-FORWARD, or by the rule that
# lets through what the programs translated.
VERDICTS = {
    f"{NODE}:30020": CLOSED,
    f"{NODE}:30021": frozenset({POD2}),
    f"{NODE}:30022": frozenset({REFUSED}),
    "10.96.0.20:80": CLOSED,
    "10.96.0.21:80": frozenset({POD2}),
    "10.96.0.22:80": frozenset({REFUSED}),
}
SOURCES = (CLIENT, POD3)


@pytest.fixture
def shop(node):
    node.manifests.put("shop", SHOP)
    return node


def remove_our_jumps(node: Node) -> None:
    """Remove every jump of ours from the built-in chains of filter."""
    for family in Family:
        lines = [line for line in node.saved(family) if " -j KPROXY-" in line]
        jumps = [rule for _, _, rule in (line.partition("] -A ") for line in lines)]
        own = [rule for rule in jumps if rule.startswith(("INPUT", "FORWARD", "OUTPUT"))]
        gone = [f"-D {rule}" for rule in own if rule.split()[-1] != "KPROXY-SERVICES"]
        assert len(gone) >= 5
        text = "\n".join(["*filter", *gone, "COMMIT", ""])
        node.iptables(family, "-restore --noflush", text=text)


def test_after_a_start(shop):
    policies.close(shop, POD1)
    shop.ready("--no-take-over")
    assert shop.answers(VERDICTS, sources=SOURCES) == []


@pytest.mark.parametrize("variant", IPTABLES)
def test_after_a_repair(shop):
    policies.close(shop, POD1)
    shop.ready("--no-take-over")
    whole = shop.ours()
    remove_our_jumps(shop)
    until(lambda: shop.ours() == whole, within_s=LONGEST_S, what="repaired")
    assert shop.answers(VERDICTS, sources=SOURCES) == []


def test_after_a_firewall_was_flushed_and_the_engine_was_the_first_to_come_back(shop):
    policies.close(shop, POD1)
    shop.ready("--no-take-over")
    whole = shop.ours()
    for family in Family:
        shop.iptables(family, "-F FORWARD")
    policies.close(shop, POD1)
    until(lambda: shop.ours() == whole, within_s=LONGEST_S, what="repaired")
    # What was put there while the engine came is seen to stand before it, and moves.
    until(
        lambda: shop.answers(VERDICTS, sources=SOURCES) == [],
        within_s=LONGEST_S,
        what="closed again",
    )


def test_after_a_take_over(shop):
    leave_kube_proxys(shop)
    policies.close(shop, POD1)
    shop.ready("--take-over")
    assert shop.answers(VERDICTS, sources=SOURCES) == []


def test_an_engine_that_puts_itself_first_again_is_left_there(shop):
    policies.close(shop, POD1)
    assert shop.ready("--no-take-over").stop() == 0
    policies.go_first(shop)
    assert shop.once() == 0, "nothing is written for the sake of a place"
    assert shop.answers(VERDICTS, sources=SOURCES) == []
