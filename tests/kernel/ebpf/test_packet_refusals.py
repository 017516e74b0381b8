"""A refused packet becomes the answer that its sender's stack takes for the peer's."""

import struct
import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Raw

from backends.kernel.bpf.maps import possible_cpus
from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import DESTINATION, IPV4_OPTIONS, IPV6_EXTENSIONS, chained
from tests.support.ebpf.packets import DROPPED, ETHERNET, NARROW_MTU, REDIRECTED, fragments

pytestmark = pytest.mark.kernel

SENT, SILENT, LIMITED, FAILED = range(4)
INTERVAL_NS, BURST = 100_000, 2000  # refuse.h
TCP_NUMBER, UDP_NUMBER, SCTP_NUMBER = 6, 17, 132


@pytest.fixture(autouse=True)
def refused(packets):
    """Port 80 of the frontend is refused, and answers may be given."""
    for protocol in (TCP_NUMBER, UDP_NUMBER, SCTP_NUMBER):
        packets.refuse(packets.places.frontend, 80, protocol)
    for protocol in (1, 58, 50):
        packets.refuse(packets.places.frontend, 0, protocol)
    fill_buckets(packets, 0)


def fill_buckets(packets, full_at_ns):
    for kind in range(2):
        value = struct.pack("=Q", full_at_ns) * possible_cpus()
        packets.maps["refusal_buckets"].update(struct.pack("=I", kind), value)


def to_frontend(packets, **fields):
    return packets.ip(packets.places.client, packets.places.frontend, **fields)


def answer(packets, payload, **fields):
    """Return the frame that comes back."""
    if packets.family is Family.IPV4:
        fields = {"ttl": 64, "flags": "DF", "id": 0, **fields}
    else:
        fields = {"hlim": 64}
    ip = packets.ip(packets.places.frontend, packets.places.client, **fields)
    return bytes(Ether(dst=ETHERNET.src, src=ETHERNET.dst) / ip / payload)


def unreachable(packets, embedded):
    """Return the ICMP error about a packet."""
    if packets.family is Family.IPV4:
        return answer(packets, ICMP(type=3, code=3) / Raw(embedded[: 576 - 28]), tos=0xC0)
    return answer(packets, ICMPv6DestUnreach(code=4) / Raw(embedded[: 1280 - 48]))


def too_big(packets, embedded):
    """Return the ICMP error about a packet that a narrow link does not take."""
    if packets.family is Family.IPV4:
        message = ICMP(type=3, code=4, nexthopmtu=NARROW_MTU)
        return answer(packets, message / Raw(embedded[: 576 - 28]), tos=0xC0)
    message = ICMPv6PacketTooBig(mtu=NARROW_MTU)
    return answer(packets, message / Raw(embedded[: 1280 - 48]))


def counted(packets):
    """Return how often each kind of refusal was counted."""
    counts = [packets.maps["refusals"].lookup(struct.pack("=I", kind)) for kind in range(4)]
    return [int.from_bytes(count or b"", "little") for count in counts]


SEGMENTS = {
    "a SYN": (TCP(flags="S", seq=7), TCP(flags="RA", ack=8)),
    "a SYN with options": (
        TCP(flags="S", seq=0xFFFFFFFF, options=[("MSS", 1460), ("SAckOK", b"")]),
        TCP(flags="RA", ack=0),
    ),
    "a SYN with data": (TCP(flags="S", seq=7) / Raw(b"x" * 9), TCP(flags="RA", ack=17)),
    "an ACK": (TCP(flags="A", seq=7, ack=0x80000001), TCP(flags="R", seq=0x80000001)),
    "data": (TCP(flags="PA", seq=7, ack=9) / Raw(b"data!" * 99), TCP(flags="R", seq=9)),
    "a FIN": (TCP(flags="FA", seq=7, ack=9), TCP(flags="R", seq=9)),
    "a FIN without an ACK": (TCP(flags="F", seq=7) / Raw(b"x"), TCP(flags="RA", ack=9)),
    "a SYN of ECN": (TCP(flags="SEC", seq=7), TCP(flags="RA", ack=8)),
    "no flag at all": (TCP(flags=0, seq=7) / Raw(b"xy"), TCP(flags="RA", ack=9)),
}


@pytest.mark.parametrize("program", ["refuse_ingress", "refuse_egress"])
@pytest.mark.parametrize(("segment", "reset"), SEGMENTS.values(), ids=SEGMENTS)
def test_a_segment_is_answered_by_a_reset(packets, segment, reset, program):
    segment, reset = segment.copy(), reset.copy()
    segment.sport, segment.dport = 33000, 80
    reset.sport, reset.dport, reset.window = 80, 33000, 0

    ran = packets.run(ETHERNET / to_frontend(packets) / segment, program)

    assert (ran.verdict, ran.data.hex()) == (REDIRECTED, answer(packets, reset).hex())


def test_a_reset_has_no_options_or_extension_headers(packets):
    segment = TCP(sport=33000, dport=80, seq=7, flags="S", options=[("MSS", 1460)])
    reset = TCP(sport=80, dport=33000, ack=8, flags="RA", window=0)
    if packets.family is Family.IPV4:
        came = [to_frontend(packets, options=each) / segment for each in IPV4_OPTIONS.values()]
    else:
        came = [chained(to_frontend(packets), e, segment) for e in IPV6_EXTENSIONS.values()]
    for packet in came:
        ran = packets.run(ETHERNET / packet, "refuse_ingress")
        assert ran.data.hex() == answer(packets, reset).hex(), packet


def test_a_segment_that_is_many_is_answered_as_one(packets):
    segment = TCP(sport=33000, dport=80, seq=7, flags="") / Raw(bytes(3000))
    reset = TCP(sport=80, dport=33000, ack=3007, flags="RA", window=0)

    ran = packets.run(ETHERNET / to_frontend(packets) / segment, "refuse_ingress", gso_size=1448)

    assert ran.data.hex() == answer(packets, reset).hex()


def test_what_pads_a_frame_is_not_acknowledged(packets):
    frame = bytes(ETHERNET / to_frontend(packets) / TCP(sport=33000, dport=80, seq=7, flags="S"))
    reset = TCP(sport=80, dport=33000, ack=8, flags="RA", window=0)

    ran = packets.run(frame + bytes(6), "refuse_ingress")

    assert ran.data.hex() == answer(packets, reset).hex()


DATAGRAMS = {
    "udp": UDP(sport=33000, dport=80) / Raw(b"anybody?"),
    "empty udp": UDP(sport=33000, dport=80),
    "an odd byte": UDP(sport=33000, dport=80) / Raw(b"odd"),
    "another odd byte": UDP(sport=33000, dport=80) / Raw(b"x"),
    "500 bytes": UDP(sport=33000, dport=80) / Raw(b"\xfe\xdc" * 250),
    "513 bytes": UDP(sport=33000, dport=80) / Raw(b"\xfe" * 513),
    "1,190 bytes": UDP(sport=33000, dport=80) / Raw(b"\xfe" * 1190),
    "too many bytes": UDP(sport=33000, dport=80) / Raw(bytes(range(250)) * 12),
    "no checksum": UDP(sport=33000, dport=80, chksum=0) / Raw(b"bare"),
    "sctp": SCTP(sport=33000, dport=80) / SCTPChunkInit(init_tag=1),
}


@pytest.mark.parametrize("program", ["refuse_ingress", "refuse_egress"])
@pytest.mark.parametrize("datagram", DATAGRAMS.values(), ids=DATAGRAMS)
def test_all_else_is_answered_by_an_error(packets, datagram, program):
    came = bytes(to_frontend(packets) / datagram)

    ran = packets.run(bytes(ETHERNET)[:12] + ethertype(packets) + came, program)

    assert (ran.verdict, ran.data.hex()) == (REDIRECTED, unreachable(packets, came).hex())


def ethertype(packets):
    return b"\x08\x00" if packets.family is Family.IPV4 else b"\x86\xdd"


def test_an_error_embeds_options_or_extension_headers(packets):
    datagram = UDP(sport=33000, dport=80) / Raw(b"\x77" * 1100)
    if packets.family is Family.IPV4:
        came = [to_frontend(packets, options=each) / datagram for each in IPV4_OPTIONS.values()]
    else:
        came = [chained(to_frontend(packets), e, datagram) for e in IPV6_EXTENSIONS.values()]
    for packet in came:
        ran = packets.run(ETHERNET / packet, "refuse_ingress")
        assert ran.data.hex() == unreachable(packets, bytes(packet)).hex(), packet


def test_an_echo_request_is_answered_by_an_error(packets):
    echo = ICMP() if packets.family is Family.IPV4 else ICMPv6EchoRequest()
    came = bytes(to_frontend(packets) / echo / Raw(b"ping"))

    ran = packets.run(ETHERNET / packets_of(packets, came), "refuse_ingress")

    assert ran.data.hex() == unreachable(packets, came).hex()


def packets_of(packets, data):
    return (IP if packets.family is Family.IPV4 else IPv6)(data)


def test_a_first_fragment_is_answered_and_no_later_one(packets):
    whole = to_frontend(packets) / UDP(sport=33000, dport=80) / Raw(bytes(4000))
    first, second, _ = fragments(whole, 1480)
    packets.refuse(packets.places.frontend, 0, UDP_NUMBER)
    before = counted(packets)

    ran = [packets.run(each, "refuse_ingress") for each in (first, second)]

    assert ran[0].data.hex() == unreachable(packets, first[14:]).hex()
    assert (ran[1].verdict, ran[1].data) == (DROPPED, second)
    assert counted(packets)[SILENT] == before[SILENT] + 1


def never_answered(packets):
    """Yield what nobody may answer by an error or a reset."""
    segment = TCP(sport=33000, dport=80, seq=7)
    for flags in ("R", "RA", "RS"):
        segment.flags = flags
        yield to_frontend(packets) / segment.copy()
    embedded = Raw(bytes(to_frontend(packets) / UDP()))
    if packets.family is Family.IPV4:
        for number in (0, 3, 4, 5, 11, 12, 14):
            yield to_frontend(packets) / ICMP(type=number) / embedded
    else:
        for error in (
            *(ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded()),
            *(ICMPv6ParamProblem(), ICMPv6DestUnreach(type=100), ICMPv6EchoRequest(type=129)),
        ):
            yield to_frontend(packets) / error / embedded


def test_resets_and_messages_that_are_no_request_are_never_answered(packets):
    for packet in never_answered(packets):
        before, frame = counted(packets), bytes(ETHERNET / packet)
        ran = packets.run(frame, "refuse_ingress")
        assert (ran.verdict, ran.data) == (DROPPED, frame), packet
        assert counted(packets)[SILENT] == before[SILENT] + 1


def test_a_part_of_a_segment_is_answered_only_where_that_needs_no_more_of_it(packets):
    segment = TCP(sport=33000, dport=80, seq=7, ack=9, flags="S") / Raw(bytes(100))
    lone, *_ = fragments(to_frontend(packets) / segment, 64)
    segment.flags = "A"
    acknowledging, *_ = fragments(to_frontend(packets) / segment, 64)

    assert packets.run(lone, "refuse_ingress").verdict == DROPPED
    ran = packets.run(acknowledging, "refuse_ingress")
    reset = TCP(sport=80, dport=33000, seq=9, flags="R", window=0)
    assert ran.data.hex() == answer(packets, reset).hex()


@pytest.mark.parametrize("segment", [TCP(flags="S"), UDP()], ids=["reset", "error"])
def test_answers_are_given_at_a_bounded_rate(packets, segment):
    segment = segment.copy()
    segment.sport, segment.dport = 33000, 80
    frame = ETHERNET / to_frontend(packets) / segment
    before, now = counted(packets), time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    hour_ns = 3600 * 10**9
    fill_buckets(packets, now + hour_ns)
    assert packets.run(frame, "refuse_ingress").verdict == DROPPED
    assert counted(packets)[LIMITED] == before[LIMITED] + 1

    fill_buckets(packets, now)
    assert packets.run(frame, "refuse_ingress").verdict == REDIRECTED
    kind = struct.pack("=I", segment.name == "UDP")
    taken = max(memoryview(packets.maps["refusal_buckets"].lookup(kind)).cast("Q"))
    passed = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - now
    assert INTERVAL_NS <= taken - now <= INTERVAL_NS + passed


@pytest.mark.parametrize(
    "payload",
    [
        UDP(sport=33000, dport=80) / Raw(b"\xee" * 1300),
        TCP(sport=33000, dport=80, seq=7, ack=9, flags="PA") / Raw(b"\xee" * 1300),
        SCTP(sport=33000, dport=80) / Raw(b"\xee" * 1300),
    ],
    ids=["udp", "tcp", "sctp"],
)
def test_a_packet_that_is_too_big_is_answered_by_the_size_to_keep_to(packets, payload):
    number = {"UDP": UDP_NUMBER, "TCP": TCP_NUMBER}.get(payload.name, SCTP_NUMBER)
    packets.refuse(packets.places.frontend, 80, number, too_big=True)
    came = bytes(to_frontend(packets) / payload)

    ran = packets.run(bytes(ETHERNET)[:12] + ethertype(packets) + came, "refuse_egress")

    assert (ran.verdict, ran.data.hex()) == (REDIRECTED, too_big(packets, came).hex())


@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_an_error_embeds_no_more_than_is_allowed_though_ports_are_behind(packets):
    long = DESTINATION.copy()
    long.options = [PadN(optdata=bytes(248)) for _ in range(3)]
    came = bytes(chained(to_frontend(packets), [long] * 2, UDP(sport=33000, dport=80)))

    ran = packets.run(bytes(ETHERNET)[:12] + ethertype(packets) + came, "refuse_ingress")

    assert (ran.verdict, ran.data.hex()) == (REDIRECTED, unreachable(packets, came).hex())
