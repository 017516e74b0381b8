"""Later fragments go where their first one went."""

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from kproxy.core.addresses import Family
from tests.support.ebpf.packets import ETHERNET, TRANSLATED, UNTOUCHED, Ends, Kind, Role, fragments

pytestmark = pytest.mark.kernel


def datagram(packets, ends, payload):
    header = UDP(sport=ends.source_port, dport=ends.destination_port)
    return packets.ip(ends.source, ends.destination) / header / Raw(payload)


@pytest.fixture
def views(packets):
    """Ends of a packet to the frontend, before and after; that is ordered."""
    places = packets.places
    before = Ends(places.client, 33000, places.frontend, 80)
    after = Ends(places.node, 61000, places.endpoint, 8080)
    packets.rewrite(Role.DESTINATION, places.frontend, 80, 17, after)
    return before, after


def test_all_fragments_become_those_of_the_other_packet(packets, views):
    before, after = views
    payload = bytes(range(250)) * 16

    ran = [packets.run(part) for part in fragments(datagram(packets, before, payload), 1480)]

    assert {each.verdict for each in ran} == {TRANSLATED}
    expected = fragments(datagram(packets, after, payload), 1480)
    assert [each.data.hex() for each in ran] == [part.hex() for part in expected]


def test_a_fragment_before_the_first_one_passes_untouched(packets, views):
    before, _ = views
    first, second, third = fragments(datagram(packets, before, bytes(4000)), 1480)

    early = packets.run(second)

    assert (early.verdict, early.data) == (UNTOUCHED, second)
    assert packets.read(second).kind is Kind.LATER_FRAGMENT
    assert [packets.run(each).verdict for each in (first, third)] == [TRANSLATED] * 2


def test_fragments_of_other_packets_do_not_follow(packets, views):
    before, _ = views
    packet = datagram(packets, before, bytes(4000))
    packets.run(fragments(packet, 1480, identity=7)[0])

    assert packets.run(fragments(packet, 1480, identity=8)[1]).verdict == UNTOUCHED
    other = datagram(packets, before._replace(source=packets.places.router), bytes(4000))
    assert packets.run(fragments(other, 1480, identity=7)[1]).verdict == UNTOUCHED
    assert packets.run(fragments(packet, 1480, identity=7)[1]).verdict == TRANSLATED


@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV4], indirect=True, ids=["ipv4"])
def test_fragments_of_another_protocol_do_not_follow(packets, views):
    before, _ = views
    packets.run(fragments(datagram(packets, before, bytes(4000)), 1480)[0])
    segment = TCP(sport=33000, dport=80) / Raw(bytes(4000))
    other = packets.ip(before.source, before.destination) / segment

    assert packets.run(fragments(other, 1480)[1]).verdict == UNTOUCHED


def test_a_first_fragment_without_ports_makes_nothing_of_the_others(packets, views):
    before, _ = views
    tiny = packets.ip(before.source, before.destination) / TCP(sport=33000, dport=80)
    first, second, _ = fragments(tiny, 8)

    assert [packets.run(each).verdict for each in (first, second)] == [UNTOUCHED] * 2
    assert packets.read(first).kind is Kind.TRUNCATED


@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_ports_in_a_first_fragment_may_be_behind_options(packets, views):
    before, after = views
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])

    def parts(ends):
        ip = packets.ip(ends.source, ends.destination)
        payload = UDP(sport=ends.source_port, dport=ends.destination_port) / Raw(bytes(100))
        return fragments(ip / options / payload, 64)

    assert [packets.run(each).data.hex() for each in parts(before)] == [
        each.hex() for each in parts(after)
    ]


@pytest.mark.parametrize("loaded_packet_programs", [Family.IPV6], indirect=True, ids=["ipv6"])
def test_a_fragment_that_is_all_of_a_packet_is_a_packet(packets, views):
    before, _ = views
    ip = packets.ip(before.source, before.destination)
    whole = IPv6ExtHdrFragment(id=5) / UDP(sport=33000, dport=80) / Raw(b"atomic")

    ran = packets.run(ETHERNET / ip / whole)

    assert ran.verdict == TRANSLATED
    assert Ether(ran.data)[UDP].dport == 8080
    assert packets.read(ETHERNET / ip / whole).first_fragment == 0
