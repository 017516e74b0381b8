"""ICMP errors about a rewritten packet reach its sender as errors about what that one sent."""

import itertools

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import IPV4_OPTIONS, IPV6_EXTENSIONS, chained
from tests.support.ebpf.packets import ETHERNET, TRANSLATED, UNTOUCHED, Ends, Role, fragments

pytestmark = pytest.mark.kernel

ERRORS = {
    Family.IPV4: [
        ICMP(type=3, code=1),
        ICMP(type=3, code=3),
        ICMP(type=3, code=4, nexthopmtu=1280),
        ICMP(type=11, code=0),
        ICMP(type=11, code=1),
        ICMP(type=12, code=0, ptr=9),
    ],
    Family.IPV6: [
        ICMPv6DestUnreach(code=4),
        ICMPv6PacketTooBig(mtu=1280),
        ICMPv6TimeExceeded(),
        ICMPv6ParamProblem(code=1, ptr=6),
    ],
}
TRANSPORTS = {
    "tcp": (6, lambda s, d: TCP(sport=s, dport=d, seq=99, ack=7, flags="A") / Raw(bytes(300))),
    "udp": (17, lambda s, d: UDP(sport=s, dport=d) / Raw(b"what?" * 60)),
    "udp without a checksum": (17, lambda s, d: UDP(sport=s, dport=d, chksum=0) / Raw(bytes(9))),
    "sctp": (132, lambda s, d: SCTP(sport=s, dport=d, tag=5) / SCTPChunkData(data=bytes(99))),
}
WAYS = ["to the client", "to the client, masqueraded", "to the endpoint", "to the node"]


def views(packets, way):
    """Return the ends of the embedded packet where the error comes in, and at its sender."""
    places = packets.places
    sent = Ends(places.client, 33000, places.frontend, 80)
    answered = Ends(places.frontend, 80, places.client, 33000)
    return {
        "to the client": (Ends(places.client, 33000, places.endpoint, 8080), sent),
        "to the client, masqueraded": (Ends(places.node, 61000, places.endpoint, 8080), sent),
        "to the endpoint": (answered, Ends(places.endpoint, 8080, places.client, 33000)),
        "to the node": (answered, Ends(places.endpoint, 8080, places.node, 61000)),
    }[way]


def about(packets, ends, make):
    """Return the packet that an error is about, as bytes."""
    payload = make(ends.source_port, ends.destination_port)
    return bytes(packets.ip(ends.source, ends.destination) / payload)


def error(packets, source, destination, message, embedded):
    ip = packets.ip(source, destination)
    return bytes(ETHERNET / ip / message.copy() / Raw(embedded))


def order(packets, before, after, protocol):
    packets.rewrite(
        *(Role.EMBEDDED_DESTINATION, before.destination, before.destination_port, protocol), after
    )


def seen_from(packets, before, after, reporter):
    """Return who an error is from, where its receiver is."""
    return after.destination if after.destination != before.destination else reporter


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("protocol", "make"), TRANSPORTS.values(), ids=TRANSPORTS)
def test_an_error_is_about_the_packet_as_its_sender_sent_it(packets, way, protocol, make):
    before, after = views(packets, way)
    order(packets, before, after, protocol)
    header = 20 if packets.family is Family.IPV4 else 40
    lengths = [header + 8] if protocol == 132 else [header + 8, header + 18, header + 21, 1200]
    for message, length, reporter in itertools.product(
        ERRORS[packets.family], lengths, (packets.places.router, before.destination)
    ):
        embedded = about(packets, before, make)[:length]
        expected = about(packets, after, make)[:length]

        ran = packets.run(error(packets, reporter, before.source, message, embedded))

        source = seen_from(packets, before, after, reporter)
        wanted = error(packets, source, after.source, message, expected)
        assert (ran.verdict, ran.data.hex()) == (TRANSLATED, wanted.hex()), (message, length)


def test_the_checksum_of_embedded_sctp_stays_as_it_covers_what_is_not_there(packets):
    before, after = views(packets, "to the client")
    protocol, make = TRANSPORTS["sctp"]
    order(packets, before, after, protocol)
    sent, message = about(packets, before, make), ERRORS[packets.family][0]
    header = 20 if packets.family is Family.IPV4 else 40
    expected = bytearray(about(packets, after, make))
    expected[header + 8 : header + 12] = sent[header + 8 : header + 12]

    ran = packets.run(error(packets, packets.places.router, before.source, message, sent))

    wanted = error(packets, after.destination, after.source, message, bytes(expected))
    assert ran.data.hex() == wanted.hex()


def test_the_embedded_packet_may_have_options_or_extension_headers(packets):
    before, after = views(packets, "to the client, masqueraded")
    protocol, make = TRANSPORTS["udp"]
    order(packets, before, after, protocol)

    def variants(ends):
        ip = packets.ip(ends.source, ends.destination)
        payload = make(ends.source_port, ends.destination_port)
        if packets.family is Family.IPV6:
            yield from (bytes(chained(ip, each, payload)) for each in IPV6_EXTENSIONS.values())
            return
        for options in IPV4_OPTIONS.values():
            ip.options = options
            yield bytes(ip / payload)

    for sent, expected in zip(variants(before), variants(after), strict=True):
        for message in ERRORS[packets.family]:
            came = error(packets, packets.places.router, before.source, message, sent)
            wanted = error(packets, after.destination, after.source, message, expected)
            assert packets.run(came).data.hex() == wanted.hex()


def test_an_error_itself_may_have_options_or_extension_headers(packets):
    before, after = views(packets, "to the client")
    protocol, make = TRANSPORTS["tcp"]
    order(packets, before, after, protocol)
    message = ERRORS[packets.family][1]

    def variants(source, destination, embedded):
        ip, payload = packets.ip(source, destination), message.copy() / Raw(embedded)
        if packets.family is Family.IPV6:
            yield from (ETHERNET / chained(ip, each, payload) for each in IPV6_EXTENSIONS.values())
            return
        for options in IPV4_OPTIONS.values():
            ip.options = options
            yield ETHERNET / ip / payload

    came = variants(packets.places.router, before.source, about(packets, before, make))
    wanted = variants(after.destination, after.source, about(packets, after, make))
    for frame, expected in zip(came, wanted, strict=True):
        assert packets.run(frame).data.hex() == bytes(expected).hex()


def test_an_error_about_a_first_fragment_is_about_that_of_the_sender(packets):
    before, after = views(packets, "to the client")
    protocol, make = TRANSPORTS["udp"]
    order(packets, before, after, protocol)
    message = ERRORS[packets.family][0]

    def part(ends):
        packet = packets.ip(ends.source, ends.destination)
        whole = packet / make(ends.source_port, ends.destination_port)
        return fragments(whole, 256)[0][14:]

    ran = packets.run(error(packets, packets.places.router, before.source, message, part(before)))

    wanted = error(packets, after.destination, after.source, message, part(after))
    assert ran.data.hex() == wanted.hex()


def test_errors_about_nothing_of_ours_pass_untouched(packets):
    before, after = views(packets, "to the client")
    protocol, make = TRANSPORTS["udp"]
    order(packets, before, after, protocol)
    message, router = ERRORS[packets.family][0], packets.places.router
    sent = about(packets, before, make)
    packet = packets.ip(before.source, before.destination)
    later = fragments(packet / make(33000, 8080), 256)[1][14:]
    header = 20 if packets.family is Family.IPV4 else 40
    for destination, embedded in (
        (packets.places.node, sent),  # it is not from who gets the error
        (before.source, later),
        (before.source, sent[: header + 7]),
        (before.source, sent[: header - 1]),
        (before.source, b""),
        (before.source, b"\xff" * 60),
        (before.source, about(packets, before._replace(destination_port=81), make)),
    ):
        frame = error(packets, router, destination, message, embedded)
        ran = packets.run(frame)
        assert (ran.verdict, ran.data) == (UNTOUCHED, frame), embedded


def test_what_was_garbled_stays_so(packets):
    before, after = views(packets, "to the client")
    protocol, make = TRANSPORTS["tcp"]
    order(packets, before, after, protocol)
    message, router = ERRORS[packets.family][0], packets.places.router
    sent, expected = about(packets, before, make), about(packets, after, make)
    frame = bytearray(error(packets, router, before.source, message, sent))
    frame[-1] ^= 0x55

    ran = packets.run(bytes(frame))

    wanted = bytearray(error(packets, after.destination, after.source, message, expected))
    wanted[-1] ^= 0x55
    assert ran.data.hex() == wanted.hex()
