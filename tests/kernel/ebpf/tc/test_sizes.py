"""Packets through the tc programs that are too large for a link on their way."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene, as_is
from tests.support.ebpf.tc import Use, everyone
from tests.support.net import plan
from tests.support.net.plan import in_family

pytestmark = pytest.mark.kernel

NODE_PORT = 30001
VIP = "10.96.0.1"
NARROW = 1400
CHUNK, CHUNKS = 16 << 10, 16
DATAGRAM = 4000
TRIES = 10

SIDES = {"endpoint": ("eth1", "node2"), "client": ("eth0", "outside")}


@pytest.fixture(scope="module", params=SIDES)
def scene(request: pytest.FixtureRequest, bytecode: Path) -> Iterator[Scene]:
    """A node with one narrow link."""
    made = Scene(as_is(bytecode))
    device, peer = SIDES[request.param]
    for namespace, name in ((made.network.node, device), (made.network.namespaces[peer], "eth0")):
        with namespace.entered(), IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link("set", index=index, mtu=NARROW)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _forgotten(scene: Scene) -> Iterator[None]:
    yield
    scene.forget()


def passed_on(sender: socket.socket, receiver: socket.socket) -> bool:
    """Send many bytes from one socket to another; say whether they came as they were."""
    for number in range(CHUNKS):
        chunk = bytes([number]) * CHUNK
        sender.sendall(chunk)
        came = b""
        while len(came) < CHUNK:
            came += receiver.recv(CHUNK - len(came))
        if came != chunk:
            return False
    return True


@pytest.mark.parametrize("uses", [everyone(masquerade=True), (Use(), Use(), Use(masquerade=True))])
@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD1, plan.NODE])
def test_bulk_goes_through_both_ways(
    scene: Scene, family: Family, client: str, uses: tuple[Use, Use, Use]
):
    scene.frontend(NODE_PORT, [plan.FAR1], uses, port=9005)
    listener = scene.listener(plan.FAR1, family, 9005)
    talker = scene.socket(client, family)

    talker.connect((in_family(plan.NODE, family), NODE_PORT))
    server, _ = listener.accept()
    server.settimeout(10)

    with server:
        assert passed_on(talker, server)
        assert passed_on(server, talker)


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD1, plan.NODE])
def test_fragments_follow_the_first(scene: Scene, family: Family, client: str, masquerade: bool):
    scene.frontend((VIP, 80), [plan.FAR1], everyone(masquerade=masquerade), port=9006)
    server = scene.socket(plan.FAR1, family, Protocol.UDP, port=9006)
    talker = scene.socket(client, family, Protocol.UDP)
    if family is Family.IPV4:  # a path that is too narrow shall not be known beforehand
        for each in (server, talker):
            each.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: fragment here and there
    to = (in_family(VIP, family), 80)
    question, answer = b"?" * DATAGRAM, b"!" * DATAGRAM

    asked, seen = said(talker, question, to, server)
    answered, by = said(server, answer, seen, talker)

    assert asked == question
    assert (answered, by[:2]) == (answer, to)


def said(
    sender: socket.socket, what: bytes, to: tuple, receiver: socket.socket
) -> tuple[bytes, tuple]:
    """Return what comes of a datagram; the first ones may be lost, and tell what fits."""
    receiver.settimeout(0.3)
    for _ in range(TRIES):
        sender.sendto(what, to)
        with contextlib.suppress(TimeoutError):
            return receiver.recvfrom(1 << 16)
    raise AssertionError("nothing came")
