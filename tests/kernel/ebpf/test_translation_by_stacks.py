"""Real stacks speak through rewritten packets: fragments, offloads, errors, other devices."""

import fcntl
import os
import socket
import struct
import subprocess
import threading

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import ETHERNET, Ends, Role, fragments, recomputed
from tests.support.ebpf.stacks import PORTS, Stacks, refused, until_heard

pytestmark = pytest.mark.kernel

# linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
BULK_BYTES = 3 << 20


@pytest.fixture
def stacks(packets):
    with Stacks(packets) as made:
        made.attach("translate_all", "near", "ingress")
        made.attach("translate_all", "near", "egress")
        for protocol in PORTS:
            made.serve_elsewhere(protocol)
        yield made


@pytest.fixture(params=[False, True], ids=["untracked", "tracked"])
def tracked(stacks, request):
    """The node's stack keeps no connections, or does: then it puts fragments together."""
    if request.param:
        tool = "iptables" if stacks.family is Family.IPV4 else "ip6tables"
        rule = [tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"]
        with stacks.node.entered():
            subprocess.run(rule, check=True)


@pytest.mark.usefixtures("tracked")
def test_datagrams_of_4000_bytes_go_there_and_back(stacks):
    server = stacks.socket(stacks.server, "udp", (stacks.plan.server, 8080))
    client = stacks.socket(stacks.client, "udp")
    client.connect((stacks.plan.frontend, 80))
    message = bytes(range(250)) * 16
    for number in range(10):
        sent = bytes((number,)) + message
        assert until_heard(server, lambda s=sent: client.send(s)) == sent
        back = b"reply" + sent
        assert until_heard(client, lambda b=back: server.sendto(b, client.getsockname())) == back


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize(
    ("client", "node", "server"),
    [(True, True, True), (False, True, True), (True, False, True), (True, True, False)],
    ids=["all offload", "client does not", "node does not", "server does not"],
)
def test_bulk_of_tcp_goes_there_and_back(stacks, client, node, server):
    stacks.offload(stacks.client, "eth0", wanted=client)
    stacks.offload(stacks.server, "eth0", wanted=server)
    for device in ("near", "far"):
        stacks.offload(stacks.node, device, wanted=node)
    listener = stacks.socket(stacks.server, "tcp", (stacks.plan.server, 8080))
    listener.listen()
    asking = stacks.socket(stacks.client, "tcp")
    asking.connect((stacks.plan.frontend, 80))
    answering = stacks.enter_context(listener.accept()[0])
    for sender, receiver in ((asking, answering), (answering, asking)):
        content = os.urandom(1 << 16) * (BULK_BYTES >> 16)
        sending = threading.Thread(target=sender.sendall, args=(content,), daemon=True)
        sending.start()
        assert received(receiver, len(content)) == content
        sending.join()


def test_an_error_of_the_endpoint_is_believed(stacks):
    client = stacks.socket(stacks.client, "udp")
    client.connect((stacks.plan.frontend, 80))

    with pytest.raises(ConnectionRefusedError):
        until_heard(client, lambda: client.send(b"nobody is there"))


def test_an_error_about_a_narrow_link_is_believed(stacks):
    """The node's own error is about a packet to the endpoint, which the client never sent."""
    stacks.ip(stacks.node, "link set far mtu 1300")
    level, discover, size = (
        (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
        if stacks.family is Family.IPV4
        else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
    )
    client = stacks.socket(stacks.client, "udp")
    client.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
    client.connect((stacks.plan.frontend, 80))

    with pytest.raises(OSError, match="Message too long"):
        until_heard(client, lambda: client.send(bytes(1400)))
    assert client.getsockopt(level, size) == 1300


def test_tcp_keeps_to_a_narrow_link(stacks):
    stacks.ip(stacks.node, "link set far mtu 1300")
    listener = stacks.socket(stacks.server, "tcp", (stacks.plan.server, 8080))
    listener.listen()
    client = stacks.socket(stacks.client, "tcp")
    client.connect((stacks.plan.frontend, 80))
    peer = stacks.enter_context(listener.accept()[0])
    content = os.urandom(1 << 18)

    sending = threading.Thread(target=client.sendall, args=(content,), daemon=True)
    sending.start()

    assert received(peer, len(content)) == content
    sending.join()


def received(sock, size):
    """Return so many bytes of a stream."""
    parts = []
    while size:
        parts.append(sock.recv(min(size, 1 << 20)))
        size -= len(parts[-1])
    return b"".join(parts)


class Tunnel:
    """A device without a link header: what a test writes comes in there, and it reads the rest."""

    def __init__(self, stacks, name, source):
        request = struct.pack("16sH22x", name.encode(), 0x1001)  # IFF_TUN, IFF_NO_PI
        with stacks.node.entered():
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            stacks.callback(os.close, self._file)
            fcntl.ioctl(self._file, 0x400454CA, request)  # TUNSETIFF
        stacks.ip(stacks.node, f"link set {name} up", f"route add {source} dev {name}")
        stacks.wait_for(stacks.node, name)
        self._make = IP if stacks.family is Family.IPV4 else IPv6
        self._source = source

    def write(self, packet):
        os.write(self._file, bytes(packet))

    def read(self):
        """Return the next packet to the source; the stack sends some of its own, too."""
        while True:
            packet = self._make(os.read(self._file, 4096))
            if packet.dst == self._source:
                return packet


# Where an Ethernet header would name the protocol, these have its number.
TUNNELLED = {Family.IPV4: "8.0.0.7", Family.IPV6: "2001:db8:86dd:86dd:86dd:86dd:86dd:7"}


@pytest.fixture
def tunnel(stacks):
    plan = stacks.plan
    source = TUNNELLED[stacks.family]
    made = Tunnel(stacks, "tun0", source)
    stacks.packets.forget()
    for number in PORTS.values():
        there, back = Ends(source, 0, plan.node, 8080), Ends(plan.frontend, 80, source, 0)
        stacks.packets.rewrite(Role.DESTINATION, plan.frontend, 80, number, there, keep="source")
        stacks.packets.rewrite(Role.SOURCE, plan.node, 8080, number, back, keep="destination")
    return made


def test_a_device_without_a_link_header_is_translated_as_well(stacks, tunnel):
    for direction in ("ingress", "egress"):
        stacks.attach("translate_all", "tun0", direction)
    server = stacks.socket(stacks.node, "udp", (stacks.plan.node, 8080))
    ip = stacks.packets.ip(TUNNELLED[stacks.family], stacks.plan.frontend)

    question = ip / UDP(sport=33000, dport=80) / Raw(b"through a tunnel")
    received = until_heard(server, lambda: tunnel.write(question))
    address = (TUNNELLED[stacks.family], 33000)
    server.sendto(b"and back", address)
    reply = tunnel.read()

    assert received == b"through a tunnel"
    assert (reply.src, reply[UDP].sport, reply[Raw].load) == (
        *(stacks.plan.frontend, 80),
        b"and back",
    )
    assert bytes(reply) == recomputed(ETHERNET / reply)[14:]


def test_fragments_through_a_device_without_a_link_header_are_translated(stacks, tunnel):
    stacks.attach("translate_all", "tun0", "ingress")
    server = stacks.socket(stacks.node, "udp", (stacks.plan.node, 8080))
    ip = stacks.packets.ip(TUNNELLED[stacks.family], stacks.plan.frontend)
    content = os.urandom(4000)

    for frame in fragments(ip / UDP(sport=33000, dport=80) / Raw(content), 1232):
        tunnel.write(frame[14:])

    assert server.recv(8192) == content


@pytest.mark.parametrize("payload", [TCP(flags="S"), UDP()], ids=["reset", "error"])
def test_a_device_without_a_link_header_takes_answers(stacks, tunnel, payload):
    stacks.packets.forget()
    payload = payload.copy()
    payload.sport, payload.dport = 33000, 80
    number = 6 if TCP in payload else 17
    stacks.packets.refuse(stacks.plan.frontend, 80, number)
    stacks.attach("refuse_ingress", "tun0", "ingress")

    tunnel.write(stacks.packets.ip(TUNNELLED[stacks.family], stacks.plan.frontend) / payload)

    reply = tunnel.read()
    assert reply.src == stacks.plan.frontend
    assert bytes(reply) == recomputed(ETHERNET / reply)[14:]


@pytest.mark.parametrize("protocol", PORTS)
@pytest.mark.usefixtures("tunnel")
def test_the_node_itself_is_refused_at_a_device_without_a_link_header(stacks, protocol):
    stacks.packets.forget()
    destination = TUNNELLED[stacks.family]
    stacks.packets.refuse(destination, 80, PORTS[protocol])
    stacks.attach("refuse_egress", "tun0", "egress")

    assert refused(stacks.socket(stacks.node, protocol), (destination, 80))


def test_a_tagged_packet_is_left_to_the_device_of_its_tag(stacks):
    stacks.packets.refuse(stacks.plan.frontend, 80, PORTS["udp"])
    stacks.attach("refuse_ingress", "near", "ingress")
    client = stacks.socket(stacks.client, "udp")
    client.connect((stacks.plan.frontend, 80))
    link = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    datagram = stacks.packets.ip(stacks.plan.client, stacks.plan.frontend) / UDP(dport=80)
    before = refusals(stacks)

    wire, sent = stacks.tap(stacks.client, "eth0"), []
    for tag in (Dot1Q(vlan=5), None):
        wire.send(bytes(link / tag / datagram if tag else link / datagram))
        with pytest.raises(ConnectionRefusedError):
            until_heard(client, lambda: sent.append(client.send(b"behind the other one")))
        # Each that was sent without a tag, and none with one.
        assert refusals(stacks) == before + len(sent) + (tag is None)


def refusals(stacks):
    """Return how many answers were sent."""
    return int.from_bytes(stacks.packets.maps["refusals"].lookup(bytes(4)), "little")
