"""A client that uses a port again while its endpoint is replaced: its first packet is answered."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults.ipvs.conftest import serve
from tests.support.net.plan import CLIENT, POD1, POD2, in_family
from tests.support.net.responders import FAMILIES
from tests.support.node.conversations import Conversations
from tests.support.node.node import Node
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

SYN, ACK = 0x02, 0x10
PORT = 20000  # outside the range from which others take theirs
HEADER = struct.Struct("!HHIIBBHHH")
FRONTEND = "10.96.0.20:80"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_its_first_packet_is_answered_by_the_new_endpoint(node, reset):
    """No stack sends it a second time, as it comes from none."""
    serve(node, POD1)
    node.ready()
    with contextlib.closing(Conversations(node.network)) as talk:
        talk.serve(POD1, POD2)

        def newcomer(family: Family, port: int = 0):
            return talk.open(CLIENT, FRONTEND, Protocol.TCP, family, source_port=port)

        before = [newcomer(family, PORT) for family in Family]
        assert {each.partner() for each in before} == {POD1}
        serve(node, POD2)
        until(
            lambda: {newcomer(family).partner() for family in Family} == {POD2},
            within_s=LONGEST_S,
            what="new ones meet the new endpoint",
        )
        if reset:
            talk.hang_up()
        else:
            for each in before:
                each.end()
        for family in Family:
            until(
                lambda family=family: is_closed(node, family),
                within_s=LONGEST_S,
                what="the kernel has seen the end",
            )
            assert answered(node, family)


def is_closed(node: Node, family: Family) -> bool:
    """Say whether the connection of the port is over as far as the node has seen."""
    told = node.run(f"conntrack -L -f {family.name.lower()} -p tcp --orig-port-src {PORT}")
    return "ESTABLISHED" not in told and "FIN_WAIT" not in told and "CLOSE_WAIT" not in told


def answered(node: Node, family: Family) -> bool:
    """Send one opening segment from the port; say whether the frontend answers it."""
    source, address = (in_family(each, family) for each in (CLIENT, FRONTEND.partition(":")[0]))
    with node.network.machine(CLIENT).entered():
        raw = socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.bind((source, 0))
        raw.settimeout(LONGEST_S)
        raw.connect((address, 0))
        raw.send(_syn(source, address))
        while True:
            packet = raw.recv(1 << 16)
            segment = packet[20:] if family is Family.IPV4 else packet
            _, to, _, _, _, flags, *_ = HEADER.unpack_from(segment)
            if to == PORT and flags & SYN:
                return flags == SYN | ACK


def _syn(source: str, address: str) -> bytes:
    def segment(checksum: int) -> bytes:
        return HEADER.pack(PORT, 80, 0x7F000000, 0, 5 << 4, SYN, 65535, checksum, 0)

    ends = b"".join(ipaddress.ip_address(each).packed for each in (source, address))
    summed = ends + struct.pack("!II", HEADER.size, socket.IPPROTO_TCP) + segment(0)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return segment(0xFFFF - total)
