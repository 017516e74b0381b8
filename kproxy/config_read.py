"""From the text of a configuration file to typed fields, collecting everything that is wrong.

Decoding is lenient about names that nobody knows, as upstream is (it says so in one log line), and
strict about the values of those it knows.
"""

from __future__ import annotations

import contextlib
import enum
import json
import types
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin

import msgspec
import yaml

from kproxy.config_fields import ZERO_IS_DEFAULT, Configuration, LogSeconds, Seconds, Section
from kproxy.durations import parse_duration

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"
_LONGEST_VALUE = 80

S = TypeVar("S", bound=Section)


def shown(value: object) -> str:
    """Return a value as an error message shows it: one line, no control characters, not long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


@dataclass(frozen=True, slots=True)
class Problem:
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

    `changed` holds the paths of the fields that differ from their default, `unknown` those that
    nobody knows, `repeated` those that one section sets twice (the last one counts).
    """

    configuration: Configuration = field(default_factory=Configuration)
    problems: list[Problem] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def read_configuration(text: str) -> Reading:
    """Read the text of a configuration file, YAML or JSON. Never raises for what is in it."""
    reading = Reading()
    try:
        document = _load(text, reading)
    except yaml.YAMLError as error:
        reading.problems.append(Problem("", "", f"not YAML: {_yaml_error(error)}"))
    except RecursionError:
        reading.problems.append(Problem("", "", "nested too deeply"))
    except ValueError as error:  # for example a number with more digits than int() takes
        reading.problems.append(Problem("", "", f"not YAML: {error}"))
    else:
        _read_document(document, reading)
    return reading


def _read_document(document: object, reading: Reading) -> None:
    if not isinstance(document, dict):
        why = "the file is empty" if document is None else f"expected an object of kind {KIND}"
        reading.problems.append(Problem("", "", why))
        return
    fields = dict(document)
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = fields.pop(name, None)
        if found != expected:
            value = "" if found is None else shown(found)
            reading.problems.append(Problem(name, value, f"must be {expected}"))
    if not reading.problems:
        reading.configuration = _read_section(Configuration, fields, "", reading)


def _read_section(section: type[S], raw: Mapping[object, object], path: str, into: Reading) -> S:
    """Return a section with every field that could be read, and the default for each other."""
    values: dict[str, object] = {}
    plain = section()
    known = {info.encode_name: info for info in msgspec.structs.fields(section)}
    for name, value in raw.items():
        info = known.get(name) if isinstance(name, str) else None
        if info is None:
            into.unknown.append(path + _name_shown(name))
            continue
        where = path + info.encode_name
        if value is None or (where in ZERO_IS_DEFAULT and _is_zero(value)):
            continue
        if isinstance(info.type, type) and issubclass(info.type, Section):
            if isinstance(value, dict):
                values[info.name] = _read_section(info.type, value, f"{where}.", into)
            else:
                into.problems.append(Problem(where, shown(value), "expected an object"))
            continue
        try:
            values[info.name] = _read_value(info, value)
        except ValueError as error:
            into.problems.append(Problem(where, shown(value), str(error)))
        else:
            if values[info.name] != getattr(plain, info.name):
                into.changed.add(where)
    return section(**values)


def _read_value(info: msgspec.structs.FieldInfo, value: object) -> object:
    """Return `value` as the field's type has it. Raises ValueError (msgspec's is one)."""
    wanted = info.type
    if wanted is Seconds or wanted is LogSeconds:
        return _read_duration(value, nanoseconds_too=wanted is LogSeconds)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        names = [member.value for member in wanted]
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return wanted(value)
    if get_origin(wanted) is types.UnionType and isinstance(value, bool):
        raise ValueError(f"expected {' or '.join(kind.__name__ for kind in get_args(wanted))}")
    return msgspec.convert(value, wanted)


def _read_duration(value: object, *, nanoseconds_too: bool) -> float:
    if nanoseconds_too and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 2**63:
            raise ValueError("longer than 292 years")
        return value / 10**9
    if not isinstance(value, str):
        raise ValueError('expected a duration such as "30s"')
    return parse_duration(value)


def _is_zero(value: object) -> bool:
    if isinstance(value, str):
        try:
            return not value or parse_duration(value) == 0
        except ValueError:
            return False
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _name_shown(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else shown(name)


class _Loader(yaml.SafeLoader):
    """Safe YAML, with two differences: no timestamps (JSON has none), and repeats are noted.

    The slow loader, because libyaml (0.2.5) crashes the process on deep nesting.
    """

    def __init__(self, text: str, repeated: list[str]) -> None:
        super().__init__(text)
        self._repeated = repeated
        self.yaml_implicit_resolvers = {
            first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
            for first, rules in self.yaml_implicit_resolvers.items()
        }

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self._repeated.append(f"{shown(key.value)} at line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(text: str, reading: Reading) -> object:
    """Return the document, which is YAML, or JSON that the YAML reader refuses (tabs)."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return _load_json(text, reading)
    loader = _Loader(text, reading.repeated)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _load_json(text: str, reading: Reading) -> object:
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        names = [name for name, _ in pairs]
        repeated.extend(shown(name) for name in fields if names.count(name) > 1)
        return fields

    document = json.loads(text, object_pairs_hook=collect)
    reading.repeated += repeated
    return document


def _yaml_error(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
