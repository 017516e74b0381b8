"""Real stacks take a refusal for what it says: clients elsewhere, and on the node itself."""

import contextlib
import socket
import struct

import pytest
from scapy.layers.l2 import Ether

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import NARROW_MTU, recomputed
from tests.support.ebpf.stacks import PORTS, Stacks, refused, until_heard

pytestmark = pytest.mark.kernel

# linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
OFFLOADS = [(True, True), (True, False), (False, True), (False, False)]
OFFLOAD_NAMES = ["both offload", "client offloads", "node offloads", "none offloads"]


@pytest.fixture
def stacks(packets):
    for kind in range(2):
        bucket = packets.maps["refusal_buckets"]
        bucket.update(struct.pack("=I", kind), bytes(len(bucket.lookup(struct.pack("=I", kind)))))
    with Stacks(packets) as made:
        for number in PORTS.values():
            packets.refuse(made.plan.frontend, 80, number)
        yield made


def answers(packets):
    return int.from_bytes(packets.maps["refusals"].lookup(bytes(4)), "little")


def refused_at_once(stacks, place, protocol, address):
    """Say whether one answer does: a stack that does not take the first one asks again."""
    for _ in range(3):  # the answer may be lost between namespaces
        before = answers(stacks.packets)
        sock = stacks.socket(place, protocol)
        if refused(sock, (address, 80)) and answers(stacks.packets) == before + 1:
            return True
    return False


@pytest.mark.parametrize(("client", "node"), OFFLOADS, ids=OFFLOAD_NAMES)
@pytest.mark.parametrize("protocol", PORTS)
def test_a_client_elsewhere_is_refused_at_once(stacks, protocol, client, node):
    stacks.attach("refuse_ingress", "near", "ingress")
    stacks.offload(stacks.client, "eth0", wanted=client)
    stacks.offload(stacks.node, "near", wanted=node)
    frames = stacks.tap(stacks.client, "eth0")

    assert refused_at_once(stacks, stacks.client, protocol, stacks.plan.frontend)

    if not node:
        frame = answer_in(frames, stacks)
        assert bytes(frame).hex() == recomputed(frame).hex()


def answer_in(frames, stacks):
    """Return the first frame from the frontend."""
    while True:
        data, address = frames.recvfrom(2048)
        if address[2] == socket.PACKET_HOST and Ether(data).payload.fields.get("src") == (
            stacks.plan.frontend
        ):
            return Ether(data)


@pytest.mark.parametrize(("client", "node"), OFFLOADS, ids=OFFLOAD_NAMES)
@pytest.mark.parametrize("size", [4000, 1301])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_a_large_datagram_is_refused(stacks, size, mtu, client, node):
    stacks.attach("refuse_ingress", "near", "ingress")
    stacks.ip(stacks.client, f"link set eth0 mtu {mtu}")
    stacks.ip(stacks.node, f"link set near mtu {mtu}")
    stacks.offload(stacks.client, "eth0", wanted=client)
    stacks.offload(stacks.node, "near", wanted=node)
    frames = stacks.tap(stacks.client, "eth0")

    message = bytes(range(250)) * 20
    assert refused(stacks.socket(stacks.client, "udp"), (stacks.plan.frontend, 80), message[:size])

    if not node:
        frame = answer_in(frames, stacks)
        assert len(frame) <= 14 + (576 if stacks.family is Family.IPV4 else 1280)
        assert checksum_fits(frame, stacks.family)


def checksum_fits(frame, family):
    """Say whether an error's own checksum is right, whatever it embeds."""
    message = frame.payload.payload
    name = "chksum" if family is Family.IPV4 else "cksum"
    stated = message.fields[name]
    again = frame.copy()
    delattr(again.payload.payload, name)
    return Ether(bytes(again)).payload.payload.fields[name] == stated


@pytest.mark.parametrize(("client", "node"), OFFLOADS, ids=OFFLOAD_NAMES)
def test_a_datagram_that_is_many_is_refused(stacks, client, node):
    stacks.attach("refuse_ingress", "near", "ingress")
    stacks.offload(stacks.client, "eth0", wanted=client)
    stacks.offload(stacks.node, "near", wanted=node)
    sock = stacks.socket(stacks.client, "udp")
    with contextlib.suppress(OSError):  # without offload the stack does not cut datagrams
        sock.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT

    assert not client or refused(sock, (stacks.plan.frontend, 80), bytes(8000))


@pytest.mark.parametrize(("client", "node"), OFFLOADS, ids=OFFLOAD_NAMES)
def test_an_open_connection_is_reset_by_an_answer_to_its_data(stacks, client, node):
    """A reset must have the very number that the client waits for: RFC 5961, section 3.2."""
    plan = stacks.plan
    stacks.offload(stacks.client, "eth0", wanted=client)
    stacks.offload(stacks.node, "near", wanted=node)
    listener = stacks.socket(stacks.node, "tcp", (plan.node, 80))
    listener.listen()
    sock = stacks.socket(stacks.client, "tcp")
    sock.connect((plan.node, 80))
    stacks.packets.refuse(plan.node, 80, PORTS["tcp"])
    stacks.attach("refuse_ingress", "near", "ingress")

    sock.send(bytes(20000))

    with pytest.raises(ConnectionResetError):
        sock.recv(1)


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no offload"])
@pytest.mark.parametrize("protocol", PORTS)
def test_the_node_itself_is_refused_at_the_device_that_leads_there(stacks, protocol, offload):
    stacks.attach("refuse_egress", "near", "egress")
    stacks.offload(stacks.node, "near", wanted=offload)

    assert refused_at_once(stacks, stacks.node, protocol, stacks.plan.frontend)


@pytest.mark.parametrize("size", [10, 1400, 4000, 60000])
def test_the_node_itself_is_refused_whatever_the_size(stacks, size):
    stacks.attach("refuse_egress", "near", "egress")

    assert refused(stacks.socket(stacks.node, "udp"), (stacks.plan.frontend, 80), bytes(size))


@pytest.mark.parametrize("protocol", PORTS)
def test_the_node_itself_is_refused_at_its_own_addresses(stacks, protocol):
    loopback = "127.0.0.1" if stacks.family is Family.IPV4 else "::1"
    stacks.attach("refuse_egress", "lo", "egress")
    for address in (loopback, stacks.plan.node, stacks.plan.node_far):
        listener = stacks.socket(stacks.node, protocol, (address, 80))
        if protocol == "tcp":
            listener.listen()
        stacks.packets.refuse(address, 80, PORTS[protocol])

        assert refused_at_once(stacks, stacks.node, protocol, address)


def test_the_node_itself_learns_what_size_to_keep_to(stacks):
    stacks.attach("refuse_egress", "near", "egress")
    stacks.packets.refuse(stacks.plan.frontend, 80, PORTS["udp"], too_big=True)
    level, discover, size = (
        (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
        if stacks.family is Family.IPV4
        else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
    )
    sock = stacks.socket(stacks.node, "udp")
    sock.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
    sock.connect((stacks.plan.frontend, 80))
    assert sock.getsockopt(level, size) == 1500

    with pytest.raises(OSError, match="Message too long"):
        until_heard(sock, lambda: sock.send(bytes(1400)))
    assert sock.getsockopt(level, size) == NARROW_MTU
