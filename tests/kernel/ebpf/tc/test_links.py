"""Flows through a device whose packets have no link header, as those of WireGuard."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene, as_is
from tests.support.ebpf.tc import everyone
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.waiting import SLOWER

pytestmark = pytest.mark.kernel

VIP = "10.96.0.1"
BEHIND = "10.1.1.99"  # an endpoint, or a client, behind the device
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_ERROR = {Family.IPV4: ICMP, Family.IPV6: ICMPv6DestUnreach}
_IP = {Family.IPV4: IP, Family.IPV6: IPv6}
_PATIENCE_S = 10 * SLOWER


class Tunnel:
    """The far end of a device of the node: packets are read and written here."""

    def __init__(self, scene: Scene) -> None:
        with scene.network.node.entered():
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            request = struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self._fd, _TUNSETIFF, request)
            with IPRoute() as netlink:
                (index,) = netlink.link_lookup(ifname="tun0")
                netlink.link("set", index=index, state="up")
                for family in Family:
                    address, prefix = in_family(plan.NODE_SECOND, family), family.bits
                    netlink.addr("add", index=index, address=address, prefixlen=prefix)
                    to = in_family(BEHIND, family)
                    netlink.route("add", dst=f"{to}/{prefix}", oif=index)

    def receive(self, family: Family, layer: type[Packet] = UDP) -> Packet:
        """Return the next packet that leaves, of those with such a layer right above IP."""
        while True:
            ready, _, _ = select.select([self._fd], [], [], _PATIENCE_S)
            assert ready, "nothing left by the device"
            data = os.read(self._fd, 1 << 16)
            if data[0] >> 4 == (4 if family is Family.IPV4 else 6):
                packet = _IP[family](data)
                if isinstance(packet.payload, layer):
                    return packet

    def send(self, packet: Packet) -> None:
        """Let a packet come in."""
        os.write(self._fd, bytes(packet))

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture(scope="module")
def tunnelled(bytecode: Path) -> Iterator[tuple[Scene, Tunnel]]:
    """A node with such a device; the programs are attached to it too."""
    scene = Scene(as_is(bytecode))
    tunnel = Tunnel(scene)
    scene.attach_to("tun0")
    yield scene, tunnel
    tunnel.close()
    scene.close()


@pytest.fixture(autouse=True)
def _forgotten(tunnelled: tuple[Scene, Tunnel]) -> Iterator[None]:
    yield
    tunnelled[0].forget()


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD1, plan.NODE])
def test_an_endpoint_behind_it_is_reached(
    tunnelled: tuple[Scene, Tunnel], family: Family, client: str
):
    scene, tunnel = tunnelled
    scene.frontend((VIP, 80), [BEHIND], everyone(masquerade=True), port=9020)
    talker = scene.socket(client, family, Protocol.UDP)
    ip = _IP[family]

    talker.sendto(b"?", (in_family(VIP, family), 80))
    asked = tunnel.receive(family)
    assert asked.src == in_family(plan.NODE_SECOND, family)
    assert (asked.dst, asked[UDP].dport) == (in_family(BEHIND, family), 9020)
    tunnel.send(ip(src=asked.dst, dst=asked.src) / UDP(sport=9020, dport=asked.sport) / b"!")

    answer, by = talker.recvfrom(16)
    assert (answer, by[:2]) == (b"!", (in_family(VIP, family), 80))


@pytest.mark.parametrize("endpoint", [plan.POD1, plan.FAR1, plan.NODE])
def test_a_client_behind_it_is_served(
    tunnelled: tuple[Scene, Tunnel], family: Family, endpoint: str
):
    scene, tunnel = tunnelled
    scene.frontend((VIP, 80), [endpoint], everyone(masquerade=True), port=9021)
    server = scene.socket(endpoint, family, Protocol.UDP, port=9021)
    vip, client = in_family(VIP, family), in_family(BEHIND, family)

    tunnel.send(_IP[family](src=client, dst=vip) / UDP(sport=3200, dport=80) / b"?")
    asked, seen = server.recvfrom(16)
    server.sendto(b"!", seen)

    assert asked == b"?"
    answer = tunnel.receive(family)
    assert (answer.src, answer[UDP].sport) == (vip, 80)
    assert (answer.dst, answer[UDP].dport) == (client, 3200)
    assert bytes(answer[UDP].payload) == b"!"


def test_the_node_refuses_a_client_behind_it(tunnelled: tuple[Scene, Tunnel], family: Family):
    scene, tunnel = tunnelled
    scene.tc[family].cluster_ip(VIP)
    vip, client = in_family(VIP, family), in_family(BEHIND, family)

    tunnel.send(_IP[family](src=client, dst=vip) / UDP(sport=3201, dport=81) / b"?")

    answer = tunnel.receive(family, _ERROR[family])
    assert (answer.src, answer.dst) == (vip, client)
