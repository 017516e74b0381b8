"""What a packet is taken for: ours to look at, or to be left alone."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_SSRR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import (
    DESTINATION,
    IPV4_OPTIONS,
    IPV6_EXTENSIONS,
    chained,
    with_authentication,
)
from tests.support.ebpf.packets import ETHERNET, UNTOUCHED, Ends, Kind

pytestmark = pytest.mark.kernel

TCP_SEGMENT = TCP(sport=33000, dport=80, seq=0xFEDCBA98, ack=0x12345678, flags="PA", window=1111)


def between(packets, **fields):
    return packets.ip(packets.places.client, packets.places.frontend, **fields)


def ends_of(packets, sport=33000, dport=80):
    return Ends(packets.places.client, sport, packets.places.frontend, dport)


def test_a_tcp_segment_is_read_with_all_that_a_flow_goes_by(packets):
    segment = TCP_SEGMENT.copy()
    segment.options = [("MSS", 1460), ("NOP", None), ("WScale", 7)]
    read = packets.read(ETHERNET / between(packets) / segment / Raw(b"x" * 100))

    header = 20 if packets.family is Family.IPV4 else 40
    assert read == (
        *(ends_of(packets), 14, 14 + header, 14 + header + 28 + 100, read.fragment_id),
        *(0xFEDCBA98, 0x12345678, 1111, 0x18, 28, Kind.PLAIN, 6, 0, 0, 0),
    )


@pytest.mark.parametrize(
    ("payload", "protocol", "ports"),
    [
        (UDP(sport=1, dport=53) / Raw(b"?"), 17, (1, 53)),
        (UDP(sport=65535, dport=53), 17, (65535, 53)),
        (SCTP(sport=7, dport=9) / Raw(b"chunk"), 132, (7, 9)),
        (Raw(b"\x01\x02\x03\x04" * 5), 50, (0, 0)),
        (Raw(b""), 50, (0, 0)),
    ],
    ids=["udp", "empty udp", "sctp", "esp", "esp without a byte"],
)
def test_other_protocols_are_read(packets, payload, protocol, ports):
    number = "proto" if packets.family is Family.IPV4 else "nh"
    read = packets.read(ETHERNET / between(packets, **{number: protocol}) / payload)

    assert (read.kind, read.protocol, read.ends) == (Kind.PLAIN, protocol, ends_of(packets, *ports))


def test_an_address_on_the_link_is_not_taken_for_an_ip_header(packets):
    like_ip = {Family.IPV4: "44:00:00:54:00:00", Family.IPV6: "64:00:00:00:00:20"}
    frame = Ether(src=ETHERNET.src, dst=like_ip[packets.family]) / between(packets) / TCP_SEGMENT

    read = packets.read(frame)

    assert (read.kind, read.l3, read.ends) == (Kind.PLAIN, 14, ends_of(packets))


def test_what_pads_a_frame_is_no_part_of_the_packet(packets):
    frame = bytes(ETHERNET / between(packets) / UDP(sport=33000, dport=80))

    read = packets.read(frame + bytes(18))

    assert (read.kind, read.end) == (Kind.PLAIN, len(frame))


@pytest.mark.parametrize("options", IPV4_OPTIONS.values(), ids=IPV4_OPTIONS)
@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV4], indirect=True, ids=["ipv4"])
def test_ports_are_found_behind_options(packets, options):
    read = packets.read(ETHERNET / between(packets, options=options) / TCP_SEGMENT)

    assert (read.kind, read.ends) == (Kind.PLAIN, ends_of(packets))


@pytest.mark.parametrize("extensions", IPV6_EXTENSIONS.values(), ids=IPV6_EXTENSIONS)
@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_ports_are_found_behind_extension_headers(packets, extensions):
    read = packets.read(ETHERNET / chained(between(packets), extensions, TCP_SEGMENT))

    assert (read.kind, read.ends, read.protocol) == (Kind.PLAIN, ends_of(packets), 6)


@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_ports_are_found_behind_an_authentication_header(packets):
    read = packets.read(ETHERNET / with_authentication(between(packets, nh=51), TCP_SEGMENT, 6))

    assert (read.kind, read.ends, read.protocol) == (Kind.PLAIN, ends_of(packets), 6)


IPV4_LEFT_ALONE = {
    "arp": (ETHERNET / ARP(), Kind.OTHER_FAMILY),
    "ipv6": (ETHERNET / IPv6(dst="2001:db8::1") / TCP_SEGMENT, Kind.OTHER_FAMILY),
    "a tag": (ETHERNET / Dot1Q(vlan=5) / IP(dst="10.96.0.10") / TCP_SEGMENT, Kind.OTHER_FAMILY),
    "multicast": (ETHERNET / IP(dst="224.0.0.1") / UDP(), Kind.NOT_UNICAST),
    "broadcast": (ETHERNET / IP(dst="255.255.255.255") / UDP(), Kind.NOT_UNICAST),
    "to all on the link": (
        Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:01") / IP(dst="10.96.0.10") / UDP(),
        Kind.NOT_UNICAST,
    ),
    "to many on the link": (
        Ether(dst="01:00:5e:00:00:01", src="02:00:00:00:00:01") / IP(dst="10.96.0.10") / UDP(),
        Kind.NOT_UNICAST,
    ),
    "no source yet": (ETHERNET / IP(src="0.0.0.0", dst="10.96.0.10") / UDP(), Kind.NOT_UNICAST),
    "loose source route": (
        ETHERNET
        / IP(dst="10.96.0.10", options=[IPOption_NOP(), IPOption_LSRR(routers=["10.9.9.9"])])
        / TCP_SEGMENT,
        Kind.SOURCE_ROUTED,
    ),
    "strict source route": (
        ETHERNET / IP(dst="10.96.0.10", options=[IPOption_SSRR(routers=["10.9.9.9"])]) / UDP(),
        Kind.SOURCE_ROUTED,
    ),
    "a wrong version": (ETHERNET / IP(dst="10.96.0.10", version=5) / UDP(), Kind.GARBLED),
    "a header below 20 bytes": (ETHERNET / IP(dst="10.96.0.10", ihl=4) / UDP(), Kind.GARBLED),
    "a length below the header's": (ETHERNET / IP(dst="10.96.0.10", len=19) / UDP(), Kind.GARBLED),
    "longer than what came": (ETHERNET / IP(dst="10.96.0.10", len=99) / UDP(), Kind.TRUNCATED),
    "options that are not there": (
        ETHERNET / IP(dst="10.96.0.10", ihl=15, len=60) / Raw(bytes(30)),
        Kind.TRUNCATED,
    ),
    "sctp of 11 bytes": (
        ETHERNET / IP(dst="10.96.0.10", proto=132) / Raw(bytes(11)),
        Kind.TRUNCATED,
    ),
    "udp of 7 bytes": (ETHERNET / IP(dst="10.96.0.10", proto=17) / Raw(bytes(7)), Kind.TRUNCATED),
    "tcp of 19 bytes": (ETHERNET / IP(dst="10.96.0.10", proto=6) / Raw(bytes(19)), Kind.TRUNCATED),
    "a tcp header below 20 bytes": (
        ETHERNET / IP(dst="10.96.0.10") / TCP(dataofs=4),
        Kind.GARBLED,
    ),
    "a tcp header beyond the end": (
        ETHERNET / IP(dst="10.96.0.10") / TCP(dataofs=6),
        Kind.GARBLED,
    ),
}


@pytest.mark.parametrize(("frame", "kind"), IPV4_LEFT_ALONE.values(), ids=IPV4_LEFT_ALONE)
@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV4], indirect=True, ids=["ipv4"])
def test_what_is_not_ours_passes_untouched(packets, frame, kind):
    ran = packets.run(frame)

    assert packets.read(frame).kind is kind
    assert (ran.verdict, ran.data) == (UNTOUCHED, bytes(frame))


def ipv6(**fields):
    return ETHERNET / IPv6(dst="fd00:96::a", src="2001:db8:7::7", **fields)


IPV6_LEFT_ALONE = {
    "ipv4": (ETHERNET / IP(dst="10.96.0.10") / TCP_SEGMENT, Kind.OTHER_FAMILY),
    "multicast": (ETHERNET / IPv6(src="fe80::1", dst="ff02::1") / UDP(), Kind.NOT_UNICAST),
    "no source yet": (ETHERNET / IPv6(src="::", dst="fd00:96::a") / UDP(), Kind.NOT_UNICAST),
    "a wrong version": (ipv6(version=4) / UDP(), Kind.GARBLED),
    "longer than what came": (ipv6(plen=99) / UDP(), Kind.TRUNCATED),
    "a route with hops to go": (
        ipv6() / IPv6ExtHdrRouting(type=4, addresses=["fd00:96::a", "fd00:96::b"]) / TCP_SEGMENT,
        Kind.SOURCE_ROUTED,
    ),
    "too many extension headers": (
        chained(ipv6(), [DESTINATION] * 6, TCP_SEGMENT),
        Kind.EXTENSIONS,
    ),
    "an extension header beyond the end": (
        ipv6() / IPv6ExtHdrDestOpt(len=50) / TCP_SEGMENT,
        Kind.TRUNCATED,
    ),
    "half an extension header": (ipv6(nh=60) / Raw(bytes(5)), Kind.TRUNCATED),
    "two fragment headers": (
        ipv6() / IPv6ExtHdrFragment(m=1) / IPv6ExtHdrFragment(m=1) / UDP(),
        Kind.GARBLED,
    ),
    "sctp of 11 bytes": (ipv6(nh=132) / Raw(bytes(11)), Kind.TRUNCATED),
    "udp of 7 bytes": (ipv6(nh=17) / Raw(bytes(7)), Kind.TRUNCATED),
    "tcp of 19 bytes": (ipv6(nh=6) / Raw(bytes(19)), Kind.TRUNCATED),
}


@pytest.mark.parametrize(("frame", "kind"), IPV6_LEFT_ALONE.values(), ids=IPV6_LEFT_ALONE)
@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_what_is_not_ours_passes_untouched_in_ipv6(packets, frame, kind):
    ran = packets.run(frame)

    assert packets.read(frame).kind is kind
    assert (ran.verdict, ran.data) == (UNTOUCHED, bytes(frame))


def test_a_packet_cut_off_anywhere_is_no_more_than_that(packets):
    whole = bytes(ETHERNET / between(packets) / TCP_SEGMENT / Raw(b"payload"))

    header = 34 if packets.family is Family.IPV4 else 54  # a test run takes no less
    for length in range(header, len(whole)):
        assert packets.read(whole[:length]).kind is Kind.TRUNCATED, length


def test_segments_larger_than_the_length_field_are_read(packets):
    length = {"len": 0} if packets.family is Family.IPV4 else {"plen": 0}
    frame = ETHERNET / between(packets, **length) / TCP_SEGMENT / Raw(bytes(3000))

    assert packets.read(frame, gso_size=1448).kind is Kind.PLAIN
    assert packets.read(frame).kind in (Kind.GARBLED, Kind.TRUNCATED)


def test_errors_are_told_from_other_messages(packets):
    if packets.family is Family.IPV4:
        kinds = {
            t: packets.read(ETHERNET / between(packets) / ICMP(type=t)).kind for t in range(40)
        }
        errors = {3, 11, 12}
    else:
        kinds = {}
        for number in range(256):
            message = ICMPv6DestUnreach(type=number) / Raw(bytes(40))
            kinds[number] = packets.read(ETHERNET / between(packets) / message).kind
        errors = {1, 2, 3, 4}

    assert {number for number, kind in kinds.items() if kind is Kind.ERROR} == errors
    assert set(kinds.values()) == {Kind.ERROR, Kind.PLAIN}


def test_an_echo_request_has_a_type_and_no_ports(packets):
    echo = ICMP(type=8, code=1) if packets.family is Family.IPV4 else ICMPv6EchoRequest(code=1)
    read = packets.read(ETHERNET / between(packets) / echo)

    assert (read.kind, read.ends) == (Kind.PLAIN, ends_of(packets, 0, 0))
    assert (read.icmp_type, read.icmp_code) == (8 if packets.family is Family.IPV4 else 128, 1)
