"""Packets that are none of ours: let through at a glance, and only if they surely are."""

from __future__ import annotations

import pytest

from backends.ebpf.driver.claims import Claims
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene
from tests.support.net import plan
from tests.support.net.observed import Probe, Silent
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT

pytestmark = pytest.mark.kernel

VIP = "10.96.0.1"
UNCLAIMED = "10.96.0.77"


def test_what_is_none_of_ours_is_not_looked_at(scene: Scene, family: Family):
    protocol = Protocol.UDP  # of TCP others' last segments may still be on their way
    scene.frontend((VIP, 80), [plan.POD1])
    tc = scene.tc[family]

    for client, to in ((plan.CLIENT, plan.FAR2), (plan.POD2, plan.FAR2), (plan.CLIENT2, plan.POD3)):
        assert scene.open(client, f"{to}:{PORT}", protocol, family).partner() == to
    assert not tc.counts().keys() - {"NOT_UNDERSTOOD"}  # nor is multicast a Service

    assert scene.open(plan.CLIENT, f"{plan.POD1}:{PORT}", protocol, family).partner() == plan.POD1
    assert tc.counts().keys() - {"NOT_UNDERSTOOD"} == {"NOT_A_SERVICE"}


def test_without_all_claims_nothing_is_foreign(scene: Scene, family: Family):
    tc = scene.tc[family]
    key = (16384 + 1024).to_bytes(4, "little")
    complete = tc.maps["claims"].lookup(key)
    assert complete is not None
    tc.maps["claims"].update(key, bytes(8))
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


def test_a_client_with_an_address_of_a_service_network_is_answered(scene: Scene, family: Family):
    tc = scene.tc[family]
    key = family.bits.to_bytes(4, "little") + tc.packed(plan.CLIENT)
    tc.maps["unclaimed_networks"].update(key, b"\2")

    try:
        to = f"{plan.POD1}:{PORT}"
        assert scene.open(plan.CLIENT, to, Protocol.TCP, family).partner() == plan.POD1
        assert "UNCLAIMED_ADDRESS" not in tc.counts()
    finally:
        tc.maps["unclaimed_networks"].delete(key)


def test_claims_that_are_there_are_taken_over(scene: Scene, family: Family):
    tc = scene.tc[family]
    before = dict(tc.maps["claims"].items())
    again = Claims(family, tc.maps["claims"])

    again.add([tc.packed(plan.NODE)])
    again.complete()

    assert dict(tc.maps["claims"].items()) == before
