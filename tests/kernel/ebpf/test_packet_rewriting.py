"""A packet with other ends is, byte for byte, what its sender would have sent with these ends."""

import itertools
import struct
from dataclasses import astuple

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Raw
from scapy.utils import checksum

from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import IPV4_OPTIONS, IPV6_EXTENSIONS, chained
from tests.support.ebpf.packets import (
    DROPPED,
    ETHERNET,
    TRANSLATED,
    Ends,
    Role,
    fragments,
    packed_ends,
    with_ends,
)

pytestmark = pytest.mark.kernel

PAYLOADS = {
    "tcp": TCP(sport=33000, dport=80, seq=1, flags="S", options=[("MSS", 1460)]),
    "tcp with data": TCP(sport=33000, dport=80, flags="PA") / Raw(bytes(range(256)) * 5),
    "udp": UDP(sport=33000, dport=80),
    "udp with an odd byte": UDP(sport=33000, dport=80) / Raw(b"odd"),
    "large udp": UDP(sport=33000, dport=80) / Raw(b"\xff" * 1401),
    "sctp init": SCTP(sport=33000, dport=80, tag=0) / SCTPChunkInit(init_tag=7),
    "sctp data": SCTP(sport=33000, dport=80, tag=7) / SCTPChunkData(data=b"hello" * 251),
}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def frames(packets, payload):
    """Yield the payload as a frame from client to frontend, behind all that can be before it."""
    ip = packets.ip(packets.places.client, packets.places.frontend)
    if packets.family is Family.IPV6:
        for extensions in IPV6_EXTENSIONS.values():
            yield Ether(bytes(ETHERNET / chained(ip, extensions, payload)))
        return
    for options in IPV4_OPTIONS.values():
        ip.options = options
        yield Ether(bytes(ETHERNET / ip / payload))


def targets(packets):
    """Yield the ends that a packet of the client's gets in all views of a flow."""
    client, frontend, endpoint, node, _ = astuple(packets.places)
    yield Ends(client, 33000, endpoint, 8080)
    yield Ends(client, 33000, endpoint, 80)
    yield Ends(node, 61000, endpoint, 8080)
    yield Ends(node, 33000, frontend, 80)
    yield Ends(client, 33000, frontend, 80)
    yield Ends(endpoint, 65535, client, 1)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_another_packet_is_what_its_sender_would_have_made_of_it(packets, payload):
    protocol = PROTOCOLS[payload.name.lower()]
    for frame, to in itertools.product(frames(packets, payload), targets(packets)):
        packets.rewrite(Role.DESTINATION, packets.places.frontend, 80, protocol, to)

        ran = packets.run(frame)

        assert ran.verdict == TRANSLATED
        assert ran.data.hex() == with_ends(frame, to).hex(), (frame, to)


def test_what_has_no_ports_gets_other_addresses(packets):
    places = packets.places
    to = Ends(places.node, 1, places.endpoint, 2)
    number = "proto" if packets.family is Family.IPV4 else "nh"
    echo = ICMP() if packets.family is Family.IPV4 else ICMPv6EchoRequest()
    for payload, protocol in ((Raw(bytes(64)), 50), (echo / Raw(b"ping!"), echo_number(packets))):
        packets.rewrite(Role.DESTINATION, places.frontend, 0, protocol, to)
        ip = packets.ip(places.client, places.frontend, **{number: protocol})
        frame = Ether(bytes(ETHERNET / ip / payload))

        ran = packets.run(frame)

        assert (ran.verdict, ran.data.hex()) == (TRANSLATED, with_ends(frame, to).hex())


def echo_number(packets):
    return 1 if packets.family is Family.IPV4 else 58


@pytest.mark.parametrize("protocol", [136, 33], ids=["udp-lite", "dccp"])
def test_checksums_of_rare_protocols_cover_the_new_addresses(packets, protocol):
    places = packets.places
    to = Ends(places.node, 1, places.endpoint, 2)
    packets.rewrite(Role.DESTINATION, places.frontend, 0, protocol, to)
    number = "proto" if packets.family is Family.IPV4 else "nh"
    content = bytearray(struct.pack("!HHHH", 33000, 80, 8, 0) + b"content!")

    def summed(source, destination):
        ends = packed_ends(Ends(source, 0, destination, 0))
        content[6:8] = bytes(2)
        total = checksum(ends + struct.pack("!HH", protocol, len(content)) + bytes(content))
        content[6:8] = struct.pack("!H", total)
        ip = packets.ip(source, destination, **{number: protocol})
        return bytes(ETHERNET / ip / Raw(bytes(content)))

    ran = packets.run(summed(places.client, places.frontend))

    assert ran.data.hex() == summed(places.node, places.endpoint).hex()


def test_udp_without_a_checksum_stays_without_one(packets):
    places = packets.places
    to = Ends(places.node, 61000, places.endpoint, 8080)
    packets.rewrite(Role.DESTINATION, places.frontend, 80, 17, to)
    ip = packets.ip(places.client, places.frontend)
    frame = Ether(bytes(ETHERNET / ip / UDP(sport=33000, dport=80, chksum=0) / Raw(b"bare")))

    ran = packets.run(frame)

    assert Ether(ran.data)[UDP].chksum == 0
    assert ran.data.hex() == with_ends(frame, to).hex()


def test_a_udp_checksum_never_becomes_none(packets):
    places = packets.places
    to = Ends(places.node, 61000, places.endpoint, 8080)
    packets.rewrite(Role.DESTINATION, places.frontend, 80, 17, to)
    ip = packets.ip(places.client, places.frontend)
    plain = Ether(with_ends(ETHERNET / ip / UDP(sport=33000, dport=80) / Raw(bytes(2)), to))
    sums_to_nothing = Raw(struct.pack("!H", plain[UDP].chksum))
    frame = Ether(bytes(ETHERNET / ip / UDP(sport=33000, dport=80) / sums_to_nothing))

    ran = packets.run(frame)

    assert Ether(ran.data)[UDP].chksum == 0xFFFF
    assert ran.data.hex() == with_ends(frame, to).hex()


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_what_was_garbled_stays_so(packets, kind):
    places = packets.places
    to = Ends(places.node, 61000, places.endpoint, 8080)
    packets.rewrite(Role.DESTINATION, places.frontend, 80, {TCP: 6, UDP: 17}[kind], to)
    ip = packets.ip(places.client, places.frontend)
    frame = Ether(bytes(ETHERNET / ip / kind(sport=33000, dport=80) / Raw(b"garbled")))
    expected = Ether(with_ends(frame, to))
    wrong = bytes(frame)[:-1] + b"!"

    ran = packets.run(wrong)

    assert ran.data == bytes(expected)[:-1] + b"!"


def test_sctp_whose_checksum_is_left_to_the_device_is_left_to_it(packets):
    places = packets.places
    to = Ends(places.client, 33000, places.endpoint, 8080)
    packets.rewrite(Role.DESTINATION, places.frontend, 80, 132, to)
    ip = packets.ip(places.client, places.frontend)
    frame = ETHERNET / ip / SCTP(sport=33000, dport=80, chksum=0) / SCTPChunkInit()

    changed = Ether(packets.run(frame).data)

    assert (changed[SCTP].dport, changed[SCTP].chksum) == (8080, 0)


def test_rewriting_there_and_back_changes_nothing(packets):
    places = packets.places
    there = Ends(places.node, 61000, places.endpoint, 8080)
    back = Ends(places.client, 33000, places.frontend, 80)
    for payload in PAYLOADS.values():
        protocol = PROTOCOLS[payload.name.lower()]
        packets.rewrite(Role.DESTINATION, places.frontend, 80, protocol, there)
        packets.rewrite(Role.DESTINATION, places.endpoint, 8080, protocol, back)
        for frame in frames(packets, payload):
            assert packets.run(packets.run(frame).data).data == bytes(frame)


def test_a_part_of_an_sctp_packet_cannot_get_other_ports(packets):
    places = packets.places
    ip = packets.ip(places.client, places.frontend)
    whole = SCTP(sport=33000, dport=80, tag=7) / SCTPChunkData(data=bytes(40))
    first, *_ = fragments(ip / whole, 24)

    packets.rewrite(
        *(Role.DESTINATION, places.frontend, 80, 132),
        Ends(places.client, 33000, places.endpoint, 80),
    )
    same_port = packets.run(first)
    packets.rewrite(
        *(Role.DESTINATION, places.frontend, 80, 132),
        Ends(places.client, 33000, places.endpoint, 8080),
    )
    other_port = packets.run(first)

    assert same_port.verdict == TRANSLATED
    assert Ether(same_port.data)[SCTP].chksum == Ether(first)[SCTP].chksum
    assert (other_port.verdict, other_port.data) == (DROPPED, first)
