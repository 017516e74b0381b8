"""From the text of a configuration file, YAML or JSON, to plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kproxy.text.utf8 import BadText, Flaw, Place, checked_utf8
from kproxy.text.yaml import read_yaml

_LONGEST_VALUE = 80
_LONGEST_INTEGER = 40  # digits; no field takes more, and Python is slow at really long ones


class JsonFloat(float):
    """A number that JSON writes with decimals or an exponent: for Go no integer, even if it is."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a text holds.

    `repeated` are the keys that one object has twice (the last one counts), each with its place
    where that is known; `more` says that other documents follow, which upstream does not look at.
    """

    value: object
    repeated: tuple[str, ...] = ()
    more: bool = False


def shown(value: object) -> str:
    """Return a value as an error message shows it: one line, no control characters, not long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def read_document(data: bytes) -> Document:
    """Return the first document of a text. Raises ValueError with a line that says what is wrong.

    A text that begins with a brace is JSON and nothing else, as it is upstream.
    """
    try:
        plain = checked_utf8(data)
        is_json = plain.lstrip().startswith(b"{")
        return _read_json(plain.decode()) if is_json else _read_yaml(plain)
    except BadText as error:
        raise ValueError(_told(error.place, error.why)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _read_yaml(data: bytes) -> Document:
    repeated: list[tuple[Place, str]] = []
    documents = read_yaml(data, repeated)
    value = next(documents, None)
    if isinstance(value, Flaw):
        raise ValueError(_told(value.place, value.why))
    names = tuple(f"{shown(key)} at line {place.line}" for place, key in repeated)
    try:
        more = next(documents, None) is not None
    except BadText:
        more = True
    return Document(value, names, more=more)


def _read_json(text: str) -> Document:
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields: dict[str, object] = {}
        for name, value in pairs:
            if name in fields:
                repeated.append(shown(name))
            fields[name] = value
        return fields

    try:
        value = json.loads(
            text,
            object_pairs_hook=collect,
            parse_float=JsonFloat,
            parse_int=_integer,
            parse_constant=_refuse,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not JSON: {where}: {error.msg}") from error
    return Document(value, tuple(dict.fromkeys(repeated)))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"not JSON: {constant}")


def _told(place: Place | None, why: str) -> str:
    where = f"line {place.line}, column {place.column}: " if place else ""
    return f"not YAML: {where}{why}"
