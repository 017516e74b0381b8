"""What the kernel may answer but seldom does, played from a script."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.kernel import conntrack
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations
from kproxy.ports.data_path import BackendError
from tests.support.flows import CLIENT, VIP, flow
from tests.support.netlink import DONE, ERROR, INTERRUPTED, SOCKET, Script, attribute, message

WANTED = Destinations(vips=frozenset([VIP]))


def entry(protocol: int, *, flags: int = 0) -> bytes:
    """Return the message of a flow to the Vip, its attributes in an order that no kernel uses."""
    client, vip = socket.inet_aton(CLIENT[0]), socket.inet_aton(VIP[0])
    from_client, to_vip = struct.pack(">H", CLIENT[1]), struct.pack(">H", VIP[1])
    number = attribute(1, bytes([protocol]))
    ports = attribute(2, attribute(3, to_vip), attribute(2, from_client), number)
    original = attribute(1, ports, attribute(1, attribute(2, vip), attribute(1, client)))
    ports = attribute(2, number, attribute(2, to_vip), attribute(3, from_client))
    reply = attribute(2, attribute(1, attribute(1, vip), attribute(2, client)), ports)
    body = attribute(12, b"\0\0\0\1") + reply + original
    return struct.pack("=IHHIIBBH", 20 + len(body), 0x100, flags, 1, 0, 2, 0, 0) + body


@pytest.fixture
def play(monkeypatch):
    """Return a function that makes the kernel give these answers."""

    def start(*answers: bytes) -> Script:
        script = Script(answers)
        monkeypatch.setattr(SOCKET, script)
        return script

    return start


def test_a_reading_is_repeated_until_nothing_disturbed_it(play):
    script = play(message(DONE, flags=INTERRUPTED), message(DONE), message(DONE))
    assert list(conntrack.list_udp(Family.IPV4, WANTED)) == []
    assert len(script.sent) == 2


def test_a_disturbance_is_noticed_in_whatever_message_it_is_told(play):
    udp = socket.IPPROTO_UDP
    play(entry(udp, flags=INTERRUPTED) + entry(udp), message(DONE), entry(udp), message(DONE))
    assert len(list(conntrack.list_udp(Family.IPV4, WANTED))) == 3


def test_an_entry_is_understood_in_whatever_order_it_is_written(play):
    play(entry(socket.IPPROTO_TCP) + entry(socket.IPPROTO_UDP), message(DONE))
    (listed,) = conntrack.list_udp(Family.IPV4, WANTED)
    assert listed._replace(handle=b"") == flow(VIP)


@given(st.lists(st.sampled_from([0, 0, 0, 1, 0x20, 0xFFFF]), min_size=8, max_size=8))
def test_ipv6_addresses_are_canonical_text(groups):
    address = struct.pack(">8H", *groups)
    text = str(ipaddress.ip_address(address))
    ports = [attribute(1, bytes([socket.IPPROTO_UDP])), attribute(3, b"\0\x35")]
    way = [attribute(1, attribute(3, address), attribute(4, address)), attribute(2, *ports)]
    body = attribute(1, *way) + attribute(2, *way)
    header = struct.pack("=IHHIIBBH", 20 + len(body), 0x100, 0, 1, 0, 10, 0, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SOCKET, Script([header + body, message(DONE)]))
        (listed,) = conntrack.list_udp(Family.IPV6, Destinations(vips=frozenset([(text, 53)])))
    assert {listed.source, listed.destination, listed.reply_source} == {text}


def test_after_five_disturbed_readings_what_they_showed_has_to_do(play):
    script = play(*[message(DONE, flags=INTERRUPTED)] * 6)
    assert list(conntrack.list_udp(Family.IPV4, WANTED)) == []
    assert len(script.sent) == 5


@pytest.mark.parametrize("kind", [ERROR, DONE])
@pytest.mark.parametrize(("code", "transient"), [(errno.ENOBUFS, True), (errno.EINVAL, False)])
def test_a_reading_that_the_kernel_breaks_off_is_an_error(play, kind, code, transient):
    play(message(kind, status=-code))
    with pytest.raises(BackendError) as caught:
        list(conntrack.list_udp(Family.IPV4, WANTED))
    assert caught.value.transient is transient


def test_an_entry_that_cannot_be_let_go_keeps_no_other_from_being_removed(play):
    batch = [flow(VIP)._replace(handle=b"x" * 4)] * 100
    busy = message(ERROR, 2, status=-errno.EBUSY)
    gone = message(ERROR, 100, status=-errno.ENOENT)
    script = play(busy, message(ERROR, 64), gone)
    with pytest.raises(BackendError, match=r"1 of 99") as caught:
        conntrack.delete(Family.IPV4, batch)

    assert caught.value.transient
    assert len(script.sent) == 2


def test_a_flow_without_a_handle_is_never_sent(play):
    script = play()
    with pytest.raises(ValueError, match="handle"):
        conntrack.delete(Family.IPV4, [flow(VIP)])
    assert not script.sent
