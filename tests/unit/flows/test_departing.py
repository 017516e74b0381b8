"""Waiting for the end of translated connections, in bounded steps."""

from __future__ import annotations

import errno
import struct

import pytest

from backends.kernel import translated
from backends.kernel.translated import Departing, served_elsewhere
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.netlink import DONE, ERROR, INTERRUPTED, SOCKET, Script, attribute, message

TRANSLATED, PLAIN = 1 << 5 | 1 << 3, 1 << 3  # IPS_DST_NAT, IPS_CONFIRMED
END = message(DONE)


def entry(number: int, status: int = TRANSLATED) -> bytes:
    body = attribute(3, struct.pack(">I", status)) + attribute(12, struct.pack(">I", number))
    return struct.pack("=IHHIIBBH", 20 + len(body), 0x100, 0, 1, 0, 2, 0, 0) + body


@pytest.fixture
def play(monkeypatch):
    """Return a function that makes the kernel give these answers."""

    def start(*answers: bytes) -> Script:
        script = Script(answers)
        monkeypatch.setattr(SOCKET, script)
        return script

    return start


def test_without_translated_connections_nothing_is_waited_for(play):
    play(entry(1, PLAIN), END)
    assert Departing(Family.IPV4).ended()


def test_those_of_the_first_sight_are_waited_for_and_no_others(play):
    departing = Departing(Family.IPV4)
    play(entry(1), entry(2), entry(3, PLAIN), END)
    assert not departing.ended()
    play(entry(2), entry(4), END)
    assert not departing.ended()
    play(entry(4), entry(5), END)
    assert departing.ended()


def test_one_that_was_gone_does_not_come_back(play):
    departing = Departing(Family.IPV4)
    for answers, ended in (((1, 2), False), ((2,), False), ((1,), True)):
        play(*map(entry, answers), END)
        assert departing.ended() is ended


def test_a_look_is_bounded_and_the_next_goes_on(play, monkeypatch):
    monkeypatch.setattr(translated, "AT_ONCE", 2)
    script = play(*map(entry, range(5)), END)
    departing = Departing(Family.IPV4)
    for left in (4, 2, 0):
        assert not departing.ended()
        assert len(script.answers) == left
    play(END)
    assert departing.ended()


def test_a_disturbed_reading_proves_nothing(play):
    departing = Departing(Family.IPV4)
    play(message(DONE, flags=INTERRUPTED))
    assert not departing.ended()
    play(END)
    assert departing.ended()


def test_after_a_refusal_it_begins_anew(play):
    departing = Departing(Family.IPV4)
    play(entry(1), message(ERROR, status=-errno.ENOBUFS))
    with pytest.raises(BackendError, match="listing translated connections"):
        departing.ended()
    play(entry(1), END)
    assert not departing.ended()
    play(END)
    assert departing.ended()


@pytest.fixture
def ipvs(monkeypatch, tmp_path):
    """Let the kernel have ipvs."""
    monkeypatch.setattr(translated, "_IP_VS", tmp_path)


def asked_and_answering(number: int, asked: int, answering: int, *, place: bytes) -> bytes:
    """Return an entry that no rule translates; the ports are the server's, there and back."""

    def ends(address: int, server: bytes, kind: int, port: int) -> bytes:
        of = attribute(1, attribute(address, server))
        return of + attribute(2, attribute(kind, struct.pack(">H", port)))

    body = (
        attribute(1, ends(2, b"\x0a\x60\0\x14", 3, asked))
        + attribute(2, ends(1, place, 2, answering))
        + attribute(3, struct.pack(">I", PLAIN))
        + attribute(12, struct.pack(">I", number))
    )
    return struct.pack("=IHHIIBBH", 20 + len(body), 0x100, 0, 1, 0, 2, 0, 0) + body


@pytest.mark.parametrize(
    ("answering", "place", "ended"),
    [
        (80, b"\x0a\x60\0\x14", True),
        (80, b"\x0a\x01\0\x0b", False),
        (8080, b"\x0a\x60\0\x14", False),
    ],
    ids=["itself", "another address", "another port"],
)
def test_what_ipvs_translates_has_no_status_and_is_told_by_who_answers(
    play, ipvs, answering, place, ended
):
    play(asked_and_answering(1, 80, answering, place=place), END)
    assert Departing(Family.IPV4, served_elsewhere).ended() is ended


def test_where_there_is_no_ipvs_the_kernel_tells_those_that_rules_translate(
    play, monkeypatch, tmp_path
):
    monkeypatch.setattr(translated, "_IP_VS", tmp_path / "missing")
    play(entry(1), END)
    assert not Departing(Family.IPV4, served_elsewhere).ended()
