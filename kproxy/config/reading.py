"""From a configuration file to typed fields, collecting everything that is wrong.

Decoding is lenient about names that nobody knows, as upstream is (it says so in one log line), and
strict about the values of those it knows.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from kproxy.config.durations import Span
from kproxy.config.fields import (
    EMPTY_IS_DEFAULT,
    ZERO_IS_DEFAULT,
    Configuration,
    Float32,
    LogSpan,
    MinSyncPeriod,
    Mode,
    Quantity,
    Section,
    chosen_min_sync_period,
)
from kproxy.config.syntax import read_document, shown
from kproxy.config.values import (
    read_choice,
    read_float32,
    read_integer,
    read_log_span,
    read_mode,
    read_quantity,
    read_span,
)

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a configuration; `path` is "" where it is the file itself."""

    path: str
    value: str
    why: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        value = f" (value {self.value})" if self.value else ""
        return f"{place}{self.why}{value}"


@dataclass(slots=True)
class Reading:
    """What came out of a file.

    `given` holds the paths of the fields that the file sets, `unknown` those that nobody knows,
    `repeated` those that one section sets twice (the last one counts). `more` says that other
    documents follow. `content` is the file itself, None where there is none.
    """

    configuration: Configuration = field(default_factory=Configuration)
    problems: list[Mistake] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    repeated: tuple[str, ...] = ()
    more: bool = False
    content: bytes | None = None


def read_configuration(data: bytes) -> Reading:
    """Read the text of a configuration file, YAML or JSON. Never raises for what is in it."""
    reading = Reading(content=data)
    try:
        document = read_document(data)
    except ValueError as error:
        reading.problems.append(Mistake("", "", str(error)))
        return reading
    reading.repeated, reading.more = document.repeated, document.more
    _read_fields(document.value, reading)
    return reading


def _read_fields(document: object, reading: Reading) -> None:
    if not isinstance(document, dict):
        why = "the file is empty" if document is None else f"expected an object of kind {KIND}"
        reading.problems.append(Mistake("", "", why))
        return
    fields = dict(document)
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = fields.pop(name, None)
        if found != expected:
            value = "" if found is None else shown(found)
            reading.problems.append(Mistake(name, value, f"must be {expected}"))
    if not reading.problems:
        reading.configuration = _read_section(Configuration, fields, "", reading)


def _read_section(section: type[S], raw: Mapping[object, object], path: str, into: Reading) -> S:
    """Return a section with every field that could be read, and the default for each other."""
    values: dict[str, object] = {}
    known = {info.encode_name: info for info in msgspec.structs.fields(section)}
    for name, value in raw.items():
        info = known.get(name) if isinstance(name, str) else None
        if info is None:
            into.unknown.append(path + _name_shown(name))
            continue
        where = path + info.encode_name
        if value is None:
            continue
        if isinstance(info.type, type) and issubclass(info.type, Section):
            if isinstance(value, dict):
                values[info.name] = _read_section(info.type, value, f"{where}.", into)
            else:
                into.problems.append(Mistake(where, shown(value), "expected an object"))
            continue
        if value == "" and where in EMPTY_IS_DEFAULT:
            continue
        try:
            read = _read_value(info.type, value)
        except ValueError as error:
            into.problems.append(Mistake(where, shown(value), str(error)))
            continue
        if where in ZERO_IS_DEFAULT and _is_zero(read):
            continue
        values[info.name] = read
        into.given.add(where)
    return section(**values)


def _read_value(wanted: object, value: object) -> object:
    """Return `value` as the field's type has it. Raises ValueError (msgspec's is one)."""
    if wanted is Span:
        return read_span(value)
    if wanted is MinSyncPeriod:
        return chosen_min_sync_period(read_span(value))
    if wanted is LogSpan:
        return read_log_span(value)
    if wanted is Float32:
        return read_float32(value)
    if wanted is Quantity:
        return read_quantity(value)
    if wanted is Mode:
        return read_mode(value)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return read_choice(value, wanted)
    return msgspec.convert(read_integer(_without_nulls(value)), wanted)


def _without_nulls(value: object) -> object:
    """Return a list or an object with Go's zero values in place of null: "" and false."""
    if isinstance(value, list):
        return ["" if item is None else item for item in value]
    if isinstance(value, dict):
        return {name: False if item is None else item for name, item in value.items()}
    return value


def _is_zero(value: object) -> bool:
    return not (value.span if isinstance(value, LogSpan | MinSyncPeriod) else value)


def _name_shown(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else shown(name)
