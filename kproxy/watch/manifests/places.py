"""Where a field stands in a manifest: looked up for errors only, by a second reading."""

from __future__ import annotations

import bisect
import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from kproxy.text.utf8 import BadText, Place
from kproxy.text.yaml import events, place_of


class _Step(enum.Enum):
    MAPPING = enum.auto()
    SEQUENCE = enum.auto()
    END = enum.auto()
    SCALAR = enum.auto()


_Token = tuple[_Step, Place, str]  # the text of a scalar, "" otherwise
_Wanted = list[tuple[str, str]]  # a path, and what of it is still ahead

_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|[^\s{}\[\],:"]+', re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Found(NamedTuple):
    """Where a path stands, and the scalar there as it is written, "" for anything else."""

    place: Place
    written: str


def yaml_places(data: bytes, paths: Iterable[str]) -> dict[str, Found]:
    """Return where each path stands in a YAML stream; see `_find`."""
    return _find(_yaml_tokens(data), paths)


def json_places(data: bytes, paths: Iterable[str]) -> dict[str, Found]:
    """Return where each path stands in a JSON text; see `_find`."""
    return _find(_json_tokens(data.decode()), paths)


def _find(tokens: Iterator[_Token], paths: Iterable[str]) -> dict[str, Found]:
    """Return the place of each path, or of the nearest parent that is there.

    A path begins with the number of its document: `[2].spec.ports[0].port`. A mapping's value
    is placed at its key. Keys may contain dots: what counts is the keys that are there.
    """
    found: dict[str, Found] = {}
    stack = [_Open(_by_index([(path, path) for path in paths]), None)]
    try:
        for step, place, text in tokens:
            if step is _Step.END:
                stack.pop()
                continue
            parent = stack[-1]
            if parent.is_at_key:
                parent.enter(place, text)
                if step is not _Step.SCALAR:  # a key that is a collection leads nowhere
                    stack.append(_open(step, []))
                continue
            wanted, at = parent.child(place)
            for path, ahead in wanted:
                found[path] = Found(at, "" if ahead else text)
            if step is not _Step.SCALAR:
                stack.append(_open(step, wanted))
    except BadText:
        pass  # what stands before the error is found
    return found


class _Open:
    """A collection that is being walked through: a sequence, or a mapping between its keys."""

    __slots__ = ("_by_index", "_count", "_key_at", "_keyed", "_wanted", "is_at_key")

    def __init__(self, by_index: dict[int, _Wanted], wanted: _Wanted | None) -> None:
        self._by_index = by_index
        self._count = -1
        self._wanted = wanted
        self._keyed: _Wanted = []
        self._key_at: Place | None = None
        self.is_at_key = wanted is not None

    def enter(self, place: Place, key: str) -> None:
        """Take the key of the value that comes next."""
        self._key_at = place
        self._keyed = [
            (path, ahead[len(key) + 1 :])
            for path, ahead in self._wanted or ()
            if ahead.startswith("." + key) and ahead[len(key) + 1 : len(key) + 2] in ("", ".", "[")
        ]
        self.is_at_key = False

    def child(self, place: Place) -> tuple[_Wanted, Place]:
        """Return what is wanted of the value that comes next, and its place."""
        if self._wanted is None:
            self._count += 1
            return self._by_index.get(self._count, []), place
        self.is_at_key = True
        return self._keyed, self._key_at or place


def _open(step: _Step, wanted: _Wanted) -> _Open:
    return _Open({}, wanted) if step is _Step.MAPPING else _Open(_by_index(wanted), None)


def _by_index(wanted: _Wanted) -> dict[int, _Wanted]:
    grouped: dict[int, _Wanted] = defaultdict(list)
    for path, ahead in wanted:
        index = _INDEX.match(ahead)
        if index:
            grouped[int(index.group(1))].append((path, ahead[index.end() :]))
    return grouped


def _yaml_tokens(data: bytes) -> Iterator[_Token]:
    steps = {
        MappingStartEvent: _Step.MAPPING,
        SequenceStartEvent: _Step.SEQUENCE,
        MappingEndEvent: _Step.END,
        SequenceEndEvent: _Step.END,
        ScalarEvent: _Step.SCALAR,
        AliasEvent: _Step.SCALAR,
    }
    for event in events(data):
        step = steps.get(type(event))
        if step is not None:
            yield step, place_of(event), event.value if isinstance(event, ScalarEvent) else ""


def _json_tokens(text: str) -> Iterator[_Token]:
    lines = [0, *(found.end() for found in re.finditer("\n", text))]
    for token in _JSON.finditer(text):
        line = bisect.bisect_right(lines, token.start())
        place = Place(line, token.start() - lines[line - 1] + 1)
        word = token.group()
        if word == "{":
            yield _Step.MAPPING, place, ""
        elif word == "[":
            yield _Step.SEQUENCE, place, ""
        elif word in "}]":
            yield _Step.END, place, ""
        else:
            yield _Step.SCALAR, place, _ESCAPE.sub(_unescaped, word.strip('"'))


def _unescaped(escape: re.Match[str]) -> str:
    number, character = escape.groups()
    return chr(int(number, 16)) if number else _ESCAPED.get(character, character)
