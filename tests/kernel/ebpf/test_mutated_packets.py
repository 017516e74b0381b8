"""Whatever bytes come in: none that is not ours is altered, and none that is ours is corrupted."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.extensions import IPV4_OPTIONS, IPV6_EXTENSIONS, chained
from tests.support.ebpf.model import ETHERNET_BYTES, Change, Model, change_of, sums_hold
from tests.support.ebpf.packets import (
    DROPPED,
    ETHERNET,
    TRANSLATED,
    UNTOUCHED,
    Ends,
    Kind,
    Role,
    fragments,
)

pytestmark = pytest.mark.kernel

PACKETS = 50_000  # of each family
AT_ONCE = 2_000  # then what is kept of fragments is forgotten: nothing is pushed out meanwhile
SHORTEST = 54  # a test run takes no IPv6 packet without its header
WITH_PORTS = {6: TCP, 17: UDP, 132: SCTP}
TELLING_BYTES = (0, 1, 4, 5, 6, 17, 43, 44, 45, 51, 60, 80, 127, 128, 132, 224, 255)


def payloads():
    yield TCP(sport=33000, dport=80, seq=1, flags="S", options=[("MSS", 1460)])
    yield TCP(sport=33000, dport=80, flags="PA") / Raw(bytes(range(64)))
    yield UDP(sport=33000, dport=80) / Raw(b"question")
    yield UDP(sport=33000, dport=80, chksum=0) / Raw(b"odd")
    yield SCTP(sport=33000, dport=80, tag=0) / SCTPChunkInit(init_tag=7)


def headed(packets, source, destination, payload):
    """Yield the payload behind all that can be before it."""
    ip = packets.ip(source, destination)
    if packets.family is Family.IPV6:
        for extensions in IPV6_EXTENSIONS.values():
            yield chained(ip, extensions, payload)
        return
    for options in IPV4_OPTIONS.values():
        ip.options = options
        yield ip.copy() / payload


def corpus(packets):
    """Return frames that are worth mutating."""
    places = packets.places
    found = []
    for payload in payloads():
        for packet in headed(packets, places.client, places.frontend, payload):
            found.append(bytes(ETHERNET / packet))
            sent = packet.__class__(bytes(packet))
            sent.src, sent.dst = places.node, places.endpoint
            kind = next(kind for kind in (TCP, UDP, SCTP) if kind in sent)
            sent[kind].sport, sent[kind].dport = 61000, 8080
            about = sent.__class__(bytes(sent))
            errors = packets.ip(places.router, places.node)
            if packets.family is Family.IPV4:
                found.append(bytes(ETHERNET / errors / ICMP(type=3, code=3) / Raw(bytes(about))))
                found.append(bytes(ETHERNET / errors / ICMP(type=11) / Raw(bytes(about)[:28])))
            else:
                found.append(bytes(ETHERNET / errors / ICMPv6DestUnreach() / Raw(bytes(about))))
                found.append(bytes(ETHERNET / errors / ICMPv6PacketTooBig() / Raw(bytes(about))))
    ip = packets.ip(places.client, places.frontend)
    for whole in (
        UDP(sport=33000, dport=80) / Raw(bytes(200)),
        SCTP(sport=33000, dport=80) / SCTPChunkData(data=bytes(100)),
    ):
        found += fragments(ip / whole, 64)
    for foreign in (
        *(ARP() / bytes(20), IP() / TCP() / bytes(20), IPv6() / UDP() / bytes(20)),
        packets.ip(places.frontend, places.client) / TCP(sport=80, dport=33000) / bytes(9),
    ):
        found.append(bytes(Ether(src=ETHERNET.src, dst=ETHERNET.dst) / foreign))
    return found


def mutated(chance, frames):
    """Return a frame with something wrong in it, or nothing."""
    data = bytearray(chance.choice(frames))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        at = chance.randrange(min(len(data), 140))
        if at < ETHERNET_BYTES and chance.random() < 0.8:
            at += ETHERNET_BYTES
        what = chance.randrange(6)
        if what == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            data[at] = chance.choice(TELLING_BYTES)
        elif what == 2:
            data[at] = chance.randrange(256)
        elif what == 3:
            del data[max(SHORTEST, chance.randrange(len(data))) :]
        elif what == 4:
            data += bytes(chance.randrange(40))
        else:
            start = chance.randrange(len(data))
            part = data[start : start + 8]
            data[at : at + len(part)] = part[: len(data) - at]
    return bytes(data + bytes(max(0, SHORTEST - len(data))))


class Expected:
    """What packet.bpf.c must do with a frame, and all that it may keep meanwhile."""

    def __init__(self, packets):
        self.model = Model(packets.family)
        self.places = packets.places
        self.there = Ends(self.places.node, 61000, self.places.endpoint, 8080)
        self.back = Ends(self.places.client, 33000, self.places.frontend, 80)
        self.by_end = {}
        self.by_embedded_end = {}
        for number in (*WITH_PORTS, 50, self.model.icmp):
            port = 80 if number in WITH_PORTS else 0
            self.by_end[self.places.frontend, port, number] = self.there
            packets.rewrite(Role.DESTINATION, self.places.frontend, port, number, self.there)
        for number in WITH_PORTS:
            self.by_embedded_end[self.places.endpoint, 8080, number] = self.back
            packets.rewrite(
                Role.EMBEDDED_DESTINATION, self.places.endpoint, 8080, number, self.back
            )
        self.first_ones = {}

    def check(self, frame, verdict, after):
        """Fail unless this is what must become of a frame; say what that is."""
        model, seen = self.model, self.model.read(frame)
        changes, parts = None, ()
        if seen.kind is Kind.ERROR:
            changes, parts = self._error(frame, seen)
        elif seen.kind < Kind.ERROR:
            seen = self._followed(seen)
            to = seen and self.by_end.get((*seen.ends[2:], seen.protocol))
            if to and self._is_part_of_sctp(frame, seen):
                assert (verdict, after) == (DROPPED, frame)
                return "dropped"
            if to:
                changes, parts = [change_of(model, seen, to, frame)], [seen]
        if changes is None:
            assert (verdict, after) == (UNTOUCHED, frame)
            return "untouched"
        change = Change(
            {at: value for each in changes for at, value in each.values.items()},
            frozenset(at for each in changes for at in each.sums),
        )
        assert verdict == TRANSLATED
        assert change.masked(after) == change.applied(frame)
        assert all(sums_hold(model, each, frame, after) for each in parts)
        return "translated"

    def _followed(self, seen):
        """Return the packet with the ports of its first fragment, None where that is not known."""
        key = (seen.source, seen.destination, seen.identity, seen.protocol * self.model.four)
        if seen.first:
            self.first_ones[key] = seen
        if seen.kind is not Kind.LATER_FRAGMENT:
            return seen
        first = self.first_ones.get(key)
        return first and replace(seen, ports=first.ports, protocol=first.protocol)

    def _is_part_of_sctp(self, frame, seen):
        return (
            seen.protocol == 132
            and seen.first
            and frame[seen.l4 + 8 : seen.l4 + 12] != bytes(4)
            and seen.ports != bytes.fromhex("ee481f90")
        )

    def _error(self, frame, seen):
        """Return how an error changes, and which parts of it sum up."""
        model, embedded = self.model, self.model.embedded(frame, seen)
        to = None
        if embedded.kind is Kind.PLAIN:
            to = self.by_embedded_end.get((*embedded.ends[2:], embedded.protocol))
        if to is None:
            return None, ()
        outer = Ends(to.destination, 0, to.source, 0)
        inner = change_of(model, embedded, to, frame)
        if embedded.protocol == 132:  # its CRC covers what an error does not embed
            inner = Change(inner.values, inner.sums - {embedded.l4 + 8, embedded.l4 + 10})
        around = change_of(model, seen, outer, frame)
        around = Change(around.values, around.sums | {seen.l4 + 2})
        return [inner, around], [seen] if embedded.protocol == 132 else [seen, embedded]


@pytest.mark.timeout(300)
def test_no_packet_is_corrupted_and_no_foreign_one_altered(packets):
    chance = random.Random(f"packets of {packets.family.value}")
    frames = corpus(packets)
    expected = Expected(packets)
    became = Counter()
    for number in range(PACKETS):
        if number % AT_ONCE == 0:
            fragments_map = packets.maps["fragments"]
            fragments_map.delete_many(list(fragments_map.keys()))
            expected.first_ones.clear()
        frame = mutated(chance, frames)
        ran = packets.run(frame)
        try:
            became[expected.check(frame, ran.verdict, ran.data)] += 1
        except AssertionError as error:
            raise AssertionError(f"{number}: {frame.hex()} -> {ran.data.hex()}") from error
    assert min(became["translated"], became["untouched"]) > PACKETS / 5, became
    assert became["dropped"] > 20, became
