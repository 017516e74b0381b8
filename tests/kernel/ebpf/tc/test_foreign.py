"""Packets that are none of ours: let through at a glance, and only if they surely are."""

from __future__ import annotations

import pytest

from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.sweep import Sweep
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import Tc, everyone
from tests.support.net import plan
from tests.support.net.observed import Probe, Silent
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT, Conversation
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

VIP = "10.96.0.1"
UNCLAIMED = "10.96.0.77"
NODE_PORT = 30001


def test_what_is_none_of_ours_is_not_looked_at(scene: Scene, family: Family):
    scene.frontend((VIP, 80), [plan.POD1])

    for client, to in ((plan.CLIENT, plan.FAR2), (plan.POD2, plan.FAR2), (plan.CLIENT2, plan.POD3)):
        straight = scene.open(client, f"{to}:{PORT}", Protocol.UDP, family)
        await_unread(scene.tc[family], straight, to)


def test_what_goes_straight_to_endpoints_is_looked_at_while_its_client_has_flows(
    scene: Scene, family: Family
):
    protocol = Protocol.UDP
    scene.frontend((VIP, 80), [plan.POD1])
    tc = scene.tc[family]
    straight = scene.open(plan.POD2, f"{plan.POD1}:{PORT}", protocol, family)
    await_unread(tc, straight, plan.POD1)

    with_flow = scene.open(plan.POD2, f"{VIP}:80", protocol, family)
    for _ in range(4):
        assert with_flow.partner() == plan.POD1
        before = tc.counts().get("NOT_A_SERVICE", 0)
        assert straight.partner() == plan.POD1
        assert tc.counts().get("NOT_A_SERVICE", 0) > before
        go_round(tc)

    tc.maps["flows"].delete_many([key for key, _ in tc.maps["flows"].items()])
    go_round(tc)
    go_round(tc)
    await_unread(tc, straight, plan.POD1)


def await_unread(tc: Tc, straight: Conversation, partner: str) -> None:
    """Wait for a message that is answered without that a program reads any packet.

    One is not enough: what closed connections send last, and neighbours, may be read meanwhile.
    """

    def unread() -> bool:
        before = tc.counts()
        assert straight.partner() == partner
        return tc.counts() == before

    until(unread, within_s=LONGEST_S, what=lambda: f"unread: {tc.counts()}")


def go_round(tc: Tc) -> None:
    """Look at all flows once, as the agent does again and again."""
    sweep = Sweep(tc.maps)
    while sweep.tend(LONGEST_S):
        pass


def test_what_the_node_sends_by_loopback_is_looked_at(scene: Scene, family: Family):
    scene.frontend(NODE_PORT, [plan.POD1], everyone(masquerade=True))
    to = f"{plan.LOOPBACK}:{NODE_PORT}"
    assert scene.open(plan.LOOPBACK, to, Protocol.TCP, family).partner() == plan.POD1


def test_without_all_claims_nothing_is_foreign(scene: Scene, family: Family):
    tc = scene.tc[family]
    key = (16384 + 1024).to_bytes(4, "little")
    complete = tc.maps["claims"].lookup(key)
    assert complete is not None
    tc.maps["claims"].update(key, bytes(16))
    try:
        to = f"{plan.FAR2}:{PORT}"
        assert scene.open(plan.CLIENT, to, Protocol.TCP, family).partner() == plan.FAR2
        assert "NOT_A_SERVICE" in tc.counts()
    finally:
        tc.maps["claims"].update(key, complete)


def test_an_address_of_a_service_network_is_never_foreign(scene: Scene, family: Family):
    tc = scene.tc[family]
    network, bits = (tc.packed("10.96.0.0"), 16 if family is Family.IPV4 else 112)
    tc.claims.add_networks([(network, bits)])
    tc.maps["unclaimed_networks"].update(bits.to_bytes(4, "little") + network, b"\2")
    probe = Probe(in_family(plan.CLIENT, family), in_family(UNCLAIMED, family), 80, Protocol.TCP)

    try:
        (observed,) = scene.network.send([probe])
        assert isinstance(observed, Silent)
        assert tc.counts()["UNCLAIMED_ADDRESS"] >= 1
    finally:
        tc.maps["unclaimed_networks"].delete(bits.to_bytes(4, "little") + network)


def test_claims_that_are_there_are_taken_over(scene: Scene, family: Family):
    tc = scene.tc[family]
    before = dict(tc.maps["claims"].items())
    again = Claims(family, tc.maps["claims"])

    again.add([tc.packed(plan.NODE)])
    again.complete()

    assert dict(tc.maps["claims"].items()) == before
