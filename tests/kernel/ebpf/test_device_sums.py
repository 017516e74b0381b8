"""Where a device summed up a whole packet (CHECKSUM_COMPLETE), that sum stays true as well.

A stack that is told a wrong one sums up anew and reports broken hardware.
"""

import ipaddress
import socket
import struct

import pytest
from scapy.layers.sctp import SCTP, SCTPChunkInit

from kproxy.core.addresses import Family
from tests.support import waiting
from tests.support.ebpf.packets import Ends, Role
from tests.support.ebpf.stacks import FAMILIES, PORTS, Stacks, refused, until_heard

pytestmark = pytest.mark.kernel

BEFORE, AFTER = range(2)  # enum moment
SCTP_NUMBER = 132
ADDRESSES = {Family.IPV4: ("172.31.0.1", "172.31.0.2"), Family.IPV6: ("fd31::1", "fd31::2")}
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")


@pytest.fixture
def stacks(packets):
    """The client reaches the frontend through a tunnel whose packets are summed up as a whole."""
    with Stacks(packets) as made:
        plan, (near, far) = made.plan, ADDRESSES[packets.family]
        made.offload(made.client, "eth0", wanted=False)
        summed_up = "udpcsum" if packets.family is Family.IPV4 else "noudp6zerocsumtx"
        for place, device, local, remote, (own, other), (mac, peer) in (
            (made.node, "near", plan.node, plan.client, (near, far), MACS),
            (made.client, "eth0", plan.client, plan.node, (far, near), MACS[::-1]),
        ):
            made.ip(
                place,
                f"link add tunnel address {mac} type vxlan id 7 local {local} remote {remote} "
                f"dev {device} dstport 4789 {summed_up}",
                f"addr add {own}/{plan.length} dev tunnel nodad",
                "link set tunnel up",
                f"neigh add {other} lladdr {peer} dev tunnel nud permanent",
            )
            made.wait_for(place, "tunnel")
        made.ip(made.client, f"route add {plan.frontend} via {near} dev tunnel")
        for moment in (BEFORE, AFTER):
            packets.maps["device_sums"].update(struct.pack("=I", moment), struct.pack("=q", -1))
        yield made


def device_sum(packets, moment):
    """Return the device's sum; machine's order, as the kernel has it."""
    (total,) = struct.unpack("=q", packets.maps["device_sums"].lookup(struct.pack("=I", moment)))
    assert total >= 0, "the device did not sum up this packet"
    return total % 0xFFFF


def summed(*parts):
    """Return the sum of bytes as the machine loads them."""
    data = b"".join(parts)
    data += bytes(len(data) & 1)
    return sum(struct.unpack(f"={len(data) // 2}H", data)) % 0xFFFF


def packed(*addresses):
    return b"".join(ipaddress.ip_address(each).packed for each in addresses)


def translating(stacks, number, near, far):
    """Order that the frontend is a port of the node itself."""
    there = Ends(far, 0, near, 8080)
    stacks.packets.rewrite(Role.DESTINATION, stacks.plan.frontend, 80, number, there, keep="source")
    stacks.attach("translate_all", "tunnel", "ingress")


def test_the_sum_of_a_datagram_follows_its_new_address(stacks):
    packets, (near, far) = stacks.packets, ADDRESSES[stacks.family]
    translating(stacks, PORTS["udp"], near, far)
    server = stacks.socket(stacks.node, "udp", (near, 8080))
    client = stacks.socket(stacks.client, "udp")
    client.connect((stacks.plan.frontend, 80))

    assert until_heard(server, lambda: client.send(b"summed up by the device" * 10))

    # An IPv4 header and its checksum sum up to nothing, and so do those of UDP with the addresses.
    change = 0
    if stacks.family is Family.IPV4:
        change = summed(packed(stacks.plan.frontend)) - summed(packed(near))
    before, after = (device_sum(packets, moment) for moment in (BEFORE, AFTER))
    assert after == (before + change) % 0xFFFF


def test_the_sum_of_sctp_follows_its_checksum(stacks):
    packets, (near, far) = stacks.packets, ADDRESSES[stacks.family]
    translating(stacks, SCTP_NUMBER, near, far)
    sent = bytes(SCTP(sport=33000, dport=80) / SCTPChunkInit(init_tag=7))
    wanted = bytes(SCTP(sport=33000, dport=8080) / SCTPChunkInit(init_tag=7))
    with stacks.client.entered():
        raw = socket.socket(FAMILIES[stacks.family], socket.SOCK_RAW, SCTP_NUMBER)
    stacks.enter_context(raw)

    raw.sendto(sent, (stacks.plan.frontend, 0))

    waiting.until(
        lambda: packets.maps["device_sums"].lookup(struct.pack("=I", AFTER)) != b"\xff" * 8,
        within_s=waiting.LONGEST_S,
        what="the packet is translated",
    )
    change = summed(wanted) - summed(sent)
    if stacks.family is Family.IPV6:
        change += summed(packed(near)) - summed(packed(stacks.plan.frontend))
    before, after = (device_sum(packets, moment) for moment in (BEFORE, AFTER))
    assert after == (before + change) % 0xFFFF


def test_the_sum_of_an_error_is_that_of_the_error(stacks):
    """What is cut off for an answer has no such sum any more: this one is short."""
    packets, (_, far) = stacks.packets, ADDRESSES[stacks.family]
    packets.refuse(stacks.plan.frontend, 80, PORTS["udp"])
    stacks.attach("refuse_ingress", "tunnel", "ingress")

    assert refused(stacks.socket(stacks.client, "udp"), (stacks.plan.frontend, 80), b"nine byte")

    # Checksums make all that they cover nothing.
    expected = 0
    if stacks.family is Family.IPV6:
        length = 8 + 40 + 8 + len(b"nine byte")
        addresses = packed(stacks.plan.frontend, far)
        header = struct.pack("!IHBB", 6 << 28, length, 58, 64) + addresses
        expected = summed(header) - summed(addresses, struct.pack("!HH", 58, length))
    assert device_sum(packets, AFTER) == expected % 0xFFFF
