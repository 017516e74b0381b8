"""YAML to plain Python values, safely and with the reading that Kubernetes gives it.

PyYAML's own constructor is not used: it lets duplicate keys through, turns `12:30` into 750 and a
date into a datetime, recurses as deep as a file wants, and is slower. Here libyaml's events are
folded into values with an explicit stack. Plain scalars are read as go-yaml reads them, except
that dates stay text; keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from kproxy.text.utf8 import MAX_DEPTH, BadText, Flaw, Place, place_at
from kproxy.text.yaml_hints import Hints, repeated_key

MAX_ALIASED_VALUES = 1_000_000  # what all aliases of a document may stand for together

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}
_NUMBER_START = frozenset("+-.0123456789")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})")
_BASED = re.compile(r"([-+]?)0([xob]?)([0-9a-fA-F]{1,40})")
_BASES = {"x": 16, "o": 8, "b": 2, "": 8}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")


class _Fault(Exception):
    def __init__(self, event: Event, why: str) -> None:
        super().__init__(why)
        self.flaw = Flaw(place_of(event), why)


def read_yaml(
    data: bytes, repeated: list[tuple[Place, str]] | None = None
) -> Iterator[object | Flaw]:
    """Yield the value of each document, or what is wrong with it. Raises BadText.

    Values are dict (text keys), list, str, int, float, bool and None. A syntax error leaves the
    rest of the file unreadable; a duplicate key and its like concern their document alone. Where
    `repeated` is given, a duplicate key is noted there instead, and its last value counts.
    """
    hints = Hints(data)
    stream = events(data)
    for event in stream:
        if not isinstance(event, DocumentStartEvent):
            continue
        try:
            yield _value(stream, repeated)
        except _Fault as fault:
            flaw = fault.flaw
            try:
                for skipped in stream:
                    if isinstance(skipped, DocumentEndEvent):
                        break
            except BadText as error:  # what was wrong first explains the rest
                raise BadText(*_explained(hints, flaw.place, flaw.why)) from error
            yield Flaw(*_explained(hints, flaw.place, flaw.why))


def events(data: bytes) -> Iterator[Event]:
    """Yield libyaml's events, refusing what nests too deeply. Raises BadText."""
    depth = 0
    try:
        parser = yaml.CBaseLoader(data)
        while True:
            event = parser.get_event()
            if event is None or isinstance(event, StreamEndEvent):
                return
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise BadText(place_of(event), f"nested deeper than {MAX_DEPTH} levels")
            elif isinstance(event, CollectionEndEvent):
                depth -= 1
            yield event
    except ReaderError as error:
        raise BadText(place_at(data, int(error.position)), str(error.reason)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        why = ", ".join(part for part in (error.context, error.problem) if part) or "is not YAML"
        if place is None:
            raise BadText(None, why) from error
        raise BadText(*_explained(Hints(data), place, why)) from error


def _explained(hints: Hints, place: Place, why: str) -> tuple[Place, str]:
    line, better = hints.likely_cause(place.line, place.column, why)
    return place if line == place.line else Place(line, 1), better


def place_of(event: Event) -> Place:
    """Return where an event begins."""
    mark = event.start_mark
    assert mark is not None, "libyaml marks every event"
    return Place(mark.line + 1, mark.column + 1)


class _Mapping:
    """A mapping that is still being read."""

    __slots__ = ("anchor", "key", "merges", "repeated", "value", "weight")

    def __init__(self, anchor: str | None, repeated: list[tuple[Place, str]] | None) -> None:
        self.anchor = anchor
        self.repeated = repeated
        self.value: dict[str, object] = {}
        self.key: str | None = None  # read, and waiting for its value
        self.merges: list[dict[str, object]] | None = None  # set by `<<`
        self.weight = 1

    @property
    def wants_key(self) -> bool:
        return self.key is None

    def add(self, event: Event, value: object) -> None:
        if self.key is None:
            self._add_key(event, value)
            return
        if self.key == "<<" and self.merges is not None:
            for merged in value if isinstance(value, list) else [value]:
                if not isinstance(merged, dict):
                    raise _Fault(event, "`<<` takes a mapping or a list of mappings")
                self.merges.append(merged)
        else:
            self.value[self.key] = value
        self.key = None

    def _add_key(self, event: Event, value: object) -> None:
        if isinstance(event, ScalarEvent):
            key = event.value
        elif isinstance(event, AliasEvent) and isinstance(value, str):
            key = value
        else:
            raise _Fault(event, "a key must be text")
        if key == "<<" and isinstance(event, ScalarEvent) and event.implicit[0]:
            if self.merges is not None:
                raise _Fault(event, "key << is there twice")
            self.merges = []
        elif key in self.value:
            if self.repeated is None:
                raise _Fault(event, repeated_key(key))
            self.repeated.append((place_of(event), key))
        self.key = key

    def finished(self) -> dict[str, object]:
        for merged in self.merges or ():
            for key, value in merged.items():
                self.value.setdefault(key, value)
        return self.value


class _Sequence:
    """A sequence that is still being read."""

    __slots__ = ("anchor", "value", "weight")
    wants_key = False

    def __init__(self, anchor: str | None) -> None:
        self.anchor = anchor
        self.value: list[object] = []
        self.weight = 1

    def add(self, event: Event, value: object) -> None:
        self.value.append(value)

    def finished(self) -> list[object]:
        return self.value


def _value(stream: Iterator[Event], repeated: list[tuple[Place, str]] | None) -> object:
    """Return the value of the document whose start was just read, and read its end."""
    open_nodes: list[_Mapping | _Sequence] = []
    anchors: dict[str, tuple[object, int]] = {}
    aliased = 0
    result: object = None
    for event in stream:
        anchor: str | None = None
        weight = 1
        value: object
        if isinstance(event, ScalarEvent):
            value, anchor = _scalar(event), event.anchor
        elif isinstance(event, CollectionStartEvent):
            if open_nodes and open_nodes[-1].wants_key:
                raise _Fault(event, "a key must be text")
            open_nodes.append(_opened(event, repeated))
            continue
        elif isinstance(event, AliasEvent):
            if event.anchor not in anchors:
                raise _Fault(event, f"alias *{event.anchor} has no anchor before it")
            value, weight = anchors[event.anchor]
            aliased += weight
            if aliased > MAX_ALIASED_VALUES:
                raise _Fault(event, f"aliases stand for more than {MAX_ALIASED_VALUES} values")
        elif isinstance(event, DocumentEndEvent):
            return result
        else:  # the end of a mapping or a sequence
            closed = open_nodes.pop()
            value, weight, anchor = closed.finished(), closed.weight, closed.anchor
        if anchor is not None:
            anchors[anchor] = (value, weight)
        if open_nodes:
            open_nodes[-1].weight += weight
            open_nodes[-1].add(event, value)
        else:
            result = value
    raise AssertionError("libyaml ends every document that it starts")


def _opened(
    event: CollectionStartEvent, repeated: list[tuple[Place, str]] | None
) -> _Mapping | _Sequence:
    is_mapping = isinstance(event, MappingStartEvent)
    if event.tag not in (None, "!", _TAG + ("map" if is_mapping else "seq")):
        raise _Fault(event, f"tag {event.tag} is not understood")
    return _Mapping(event.anchor, repeated) if is_mapping else _Sequence(event.anchor)


def _scalar(event: ScalarEvent) -> object:
    if event.implicit[0]:
        return _plain(event.value)
    if event.implicit[1] or event.tag in (None, "!"):
        return event.value
    name = event.tag.removeprefix(_TAG)
    if name in ("str", "timestamp", "binary"):
        return event.value
    value = _plain(event.value)
    if name not in _TYPES or not isinstance(value, _TYPES[name]):
        raise _Fault(event, f"tag {event.tag} does not fit {event.value!r}")
    return value


def _plain(text: str) -> object:
    """Return what an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _DECIMAL.fullmatch(text):
        return int(text)
    based = _BASED.fullmatch(text)
    if based:
        sign, base, digits = based.groups()
        try:
            return int(sign + digits, _BASES[base])
        except ValueError:
            return text
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text
