"""Bodies that come in pieces, late, or not to an end."""

import itertools

import pytest
import urllib3
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from kproxy.watch.api.body import MAX_LINE_BYTES, Broken, Silent, TooLong, lines, whole


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Body(urllib3.HTTPResponse):
    """A response whose body comes in given pieces; an exception among them is raised."""

    def __init__(self, *pieces, clock=None, pause_s=0.0):
        super().__init__()
        self._pieces = iter(pieces)
        self._clock = clock
        self._pause_s = pause_s

    def read1(self, amt=None, decode_content=None):
        if self._clock is not None:
            self._clock.now += self._pause_s
        piece = next(self._pieces, b"")
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= amt
        return piece


def split(*pieces, idle_s=10.0):
    return list(lines(Body(*pieces), idle_s=idle_s, clock=Clock()))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"one\ntwo\n", b"three\n"], [[b"one", b"two"], [b"three"]]),
        ([b"o", b"n", b"e\nt", b"wo\n"], [[b"one"], [b"two"]]),
        ([b"one", b"\n"], [[b"one"]]),
        ([b"\n\n", b"one\n\n"], [[b"one"]]),
        ([], []),
    ],
)
def test_lines_are_put_together_from_pieces(pieces, expected):
    assert split(*pieces) == expected


@pytest.mark.parametrize("size", range(1, 12))
def test_it_does_not_matter_where_a_body_is_cut(size):
    text = b'{"a":1}\n{"b":2}\n{"c":3}\n'
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    found = itertools.chain.from_iterable(split(*pieces))
    assert list(found) == text.splitlines()


def test_lines_before_a_break_count_and_the_half_one_does_not():
    body = lines(Body(b"one\ntw"), idle_s=10.0, clock=Clock())

    assert next(body) == [b"one"]
    with pytest.raises(Broken):
        next(body)


@pytest.mark.parametrize("error", [ProtocolError("reset"), ConnectionResetError("reset")])
def test_a_connection_that_breaks_is_broken(error):
    with pytest.raises(Broken):
        split(b"one\n", error)


def test_a_read_that_times_out_is_silence():
    with pytest.raises(Silent):
        split(b"one\n", ReadTimeoutError(None, None, "Read timed out."))


def test_bytes_that_never_make_a_line_are_silence_too():
    clock = Clock()
    body = Body(*[b"x"] * 100, clock=clock, pause_s=1.0)

    with pytest.raises(Silent):
        list(lines(body, idle_s=10.0, clock=clock))
    assert clock.now == 11.0


def test_empty_lines_are_no_sign_of_life():
    clock = Clock()
    body = Body(*[b"\n"] * 100, clock=clock, pause_s=1.0)

    with pytest.raises(Silent):
        list(lines(body, idle_s=10.0, clock=clock))


def test_a_reader_that_takes_its_time_is_no_silence():
    clock = Clock()
    read = []
    for batch in lines(Body(*[b"x\n"] * 3, clock=clock, pause_s=1.0), idle_s=10.0, clock=clock):
        read += batch
        clock.now += 100.0
    assert read == [b"x"] * 3


def test_a_line_without_end_is_not_kept():
    pieces = itertools.repeat(b"x" * (256 << 10), 1 + MAX_LINE_BYTES // (256 << 10))

    with pytest.raises(TooLong):
        split(*pieces)


def test_a_whole_body_is_what_its_pieces_are():
    body = Body(b"one", b"two")

    assert whole(body, most_bytes=6, within_s=1.0, clock=Clock()) == b"onetwo"


def test_a_whole_body_has_a_limit():
    with pytest.raises(TooLong):
        whole(Body(b"one", b"two"), most_bytes=5, within_s=1.0, clock=Clock())


def test_a_whole_body_has_its_time():
    clock = Clock()
    body = Body(*[b"x"] * 100, clock=clock, pause_s=1.0)

    with pytest.raises(Silent):
        whole(body, most_bytes=1000, within_s=10.0, clock=clock)
    assert clock.now == 11.0
