"""JSON to plain Python values: fast where all is well, precise where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from kproxy.text.utf8 import BadText, Place, place_at

_SPACE = " \t\r\n"


class _List(msgspec.Struct, rename="camel"):
    """A List object whose items stay text until each is looked at.

    The values of a whole list of 10,000 objects would take ten times the memory of its text.
    """

    kind: str
    items: list[msgspec.Raw]
    api_version: str = ""


def read_json(data: bytes) -> Iterator[object]:
    """Yield the value of each document (usually one; several may follow each other).

    The `items` of a List are `msgspec.Raw`; `item_value` reads them. Raises BadText.
    """
    value: object
    try:
        listed = msgspec.json.decode(data, type=_List)
        value = {"apiVersion": listed.api_version, "kind": listed.kind, "items": listed.items}
    except (msgspec.DecodeError, RecursionError):
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            yield from _read_slowly(data.decode())
            return
    yield value


def item_value(item: object) -> object:
    """Return the value of an item of a List. Raises BadText, whose place is unknown."""
    if not isinstance(item, msgspec.Raw):
        return item
    try:
        return msgspec.json.decode(item)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadText(None, str(error)) from error


def _read_slowly(text: str) -> Iterator[object]:
    """Read documents that follow each other, or say where the first error is."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    at = _skip_space(text, 0)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise BadText(Place(error.lineno, error.colno), error.msg) from error
        except RecursionError as error:
            raise BadText(None, "nested too deeply") from error
        except ValueError as error:  # NaN and its like, or a number of thousands of digits
            raise BadText(place_at(text.encode(), len(text[:at].encode())), str(error)) from error
        yield value
        at = _skip_space(text, at)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
