"""Label and field selectors, as far as lists and watches need them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.fake_api.resources import Resource
from tests.support.fake_api.statuses import Refusal, bad_request

_LABEL = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(rf"!({_LABEL})|({_LABEL})(?:\s*(==|=|!=)\s*((?:{_LABEL})?))?")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term; `value` None asks only whether the key exists."""

    key: str
    value: str | None
    wanted: bool

    def matches(self, values: Mapping[str, str]) -> bool:
        found = values.get(self.key)
        holds = found is not None if self.value is None else found == self.value
        return holds is self.wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """What a list or a watch is limited to."""

    namespace: str
    labels: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]

    @property
    def empty(self) -> bool:
        return not self.labels and not self.fields

    @property
    def name(self) -> str:
        """Return the one name that is asked for, "" if it may be any."""
        terms = (t for t in self.fields if t.key == "metadata.name" and t.wanted)
        return next((t.value or "" for t in terms), "")

    def matches(self, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
        """Say whether an object with these labels and fields is selected."""
        return (
            self.namespace in ("", fields["metadata.namespace"])
            and all(term.matches(labels) for term in self.labels)
            and all(term.matches(fields) for term in self.fields)
        )


def parse(resource: Resource, namespace: str, *, labels: str, fields: str) -> Selector:
    """Return the selector of a query. Raises Refusal as the server does."""
    return Selector(namespace, _labels(labels), _fields(resource, fields))


def _labels(text: str) -> tuple[Requirement, ...]:
    terms = []
    for part in text.split(",") if text else ():
        match = _REQUIREMENT.fullmatch(part.strip())
        if match is None:
            raise Refusal(bad_request(f"unable to parse requirement: {part}"))
        absent, key, operator, value = match.groups()
        wanted = not absent and operator != "!="
        terms.append(Requirement(absent or key, value, wanted=wanted))
    return tuple(terms)


def _fields(resource: Resource, text: str) -> tuple[Requirement, ...]:
    known = {"metadata.name", "metadata.namespace", *resource.fields}
    terms = []
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if match is None:
            raise Refusal(bad_request(f"invalid selector: '{text}'; can't understand '{part}'"))
        if match[1] not in known:
            raise Refusal(bad_request(f"field label not supported: {match[1]}"))
        terms.append(Requirement(match[1], match[3], wanted=match[2] != "!="))
    return tuple(terms)
