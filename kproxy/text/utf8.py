"""What a manifest's text can be wrong about, whatever its syntax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MAX_DEPTH = 200  # levels of nesting; libyaml's time is quadratic in the depth of flow collections


class Place(NamedTuple):
    """A position in a text, both parts counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Flaw:
    """One document that cannot be used; those around it can."""

    place: Place
    why: str


class BadText(Exception):
    """A text that cannot be read as a whole. `place` is None if no position is to blame."""

    def __init__(self, place: Place | None, why: str) -> None:
        super().__init__(why)
        self.place = place
        self.why = why


def checked_utf8(data: bytes) -> bytes:
    """Return `data` without its byte order mark; raise BadText unless it is UTF-8 without NUL."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadText(Place(1, 1), "is UTF-16; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise BadText(place_at(data, error.start), "is not UTF-8") from error
    zero = data.find(0)
    if zero >= 0:
        raise BadText(place_at(data, zero), "a NUL byte")
    return data


def place_at(data: bytes, offset: int) -> Place:
    """Return the position of a byte."""
    start = data.rfind(b"\n", 0, offset) + 1
    return Place(
        data.count(b"\n", 0, offset) + 1, len(data[start:offset].decode(errors="replace")) + 1
    )
