"""What one manifest file says: its objects, and what is wrong with it. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kproxy.core.causes import LeftOut
from kproxy.core.misshapen import reported_key
from kproxy.core.objects import EndpointSlice, InvalidObject, Kind, Object, ObjectKey
from kproxy.core.parse import SERVICE_NAME_LABEL, from_builtins, kind_of
from kproxy.core.words import placeholder
from kproxy.text.escaping import shown
from kproxy.text.json import item_value, read_json
from kproxy.text.utf8 import BadText, Flaw, Place, checked_utf8
from kproxy.text.yaml import read_yaml
from kproxy.watch.manifests.expectations import destinations, disappointments, without_service
from kproxy.watch.manifests.fields import misnamed
from kproxy.watch.manifests.near_misses import is_misspelt_list, near_miss
from kproxy.watch.manifests.places import Found, json_places, yaml_places
from kproxy.watch.manifests.problems import Problem, Severity
from kproxy.watch.manifests.refusals import refusals

MAX_PROBLEMS = 50  # of one file; the rest is counted
_LONGEST_VALUE = 80
MAX_LIST_DEPTH = 8  # Lists inside Lists

_OLD_VERSIONS = (
    ("discovery.k8s.io/v1beta1", "EndpointSlice"),
    ("networking.k8s.io/v1beta1", "ServiceCIDR"),
    ("networking.k8s.io/v1alpha1", "ServiceCIDR"),
)


class Ref(NamedTuple):
    """Identifies an object among all kinds."""

    kind: Kind
    key: ObjectKey

    def __str__(self) -> str:
        return f"{self.kind.value} {self.key}"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says.

    - `rejected`: objects that are there but invalid; their last good version stays in force.
    - `obscure`: the file holds something that cannot be told what it is (or cannot be read at
      all), so an object that is no longer found in it may be just that.
    - `unused`: kinds that look as if they mattered but do not, each once.
    - `ignored`: how many objects are of kinds that nobody here needs.
    - `left_out`: what would be a Service, or have endpoints of one, if it was right.
    """

    objects: Mapping[Ref, Object]
    rejected: frozenset[Ref]
    obscure: bool
    problems: tuple[Problem, ...]
    unused: Mapping[str, Problem]
    ignored: int
    left_out: tuple[LeftOut, ...] = ()

    def sharing(self, before: Content) -> Content:
        """Return the same, made of the objects that `before` holds where those are equal.

        Others hold on to the objects of an earlier reading, and need not learn of equal ones. So
        a file of a hundred objects, of which one changed, is not kept twice.
        """
        shared = {
            ref: before.objects[ref] if before.objects.get(ref) == new else new
            for ref, new in self.objects.items()
        }
        return replace(self, objects=shared)


def unusable(path: str, why: str, place: Place | None = None) -> Content:
    """Return the content of a file that cannot be read."""
    line, column = place or (None, None)
    problem = Problem(Severity.ERROR, path, line, column, "", "", why, "")
    return Content({}, frozenset(), True, (problem,), {}, 0)


def read_content(path: str, data: bytes) -> Content:
    """Return what the file `path` with the text `data` says."""
    try:
        text = checked_utf8(data)
        if _is_json(path, text):
            return _content(path, read_json(text), lambda paths: json_places(text, paths))
        return _content(path, read_yaml(text), lambda paths: yaml_places(text, paths))
    except BadText as error:
        return unusable(path, error.why, error.place)


def _is_json(path: str, text: bytes) -> bool:
    """Say whether to read JSON: `kubectl get -o json` may well end up in a .yaml file."""
    if os.path.splitext(path)[1] == ".json":
        return True
    if text.lstrip()[:1] != b"{":
        return False
    try:
        for value in read_json(text):
            for item in _listed_items(value) or ():
                item_value(item)
    except BadText:
        return False
    return True


def _content(
    path: str,
    documents: Iterable[object],
    places: Callable[[Iterable[str]], Mapping[str, Found]],
) -> Content:
    reading = _Reading()
    for number, value in enumerate(documents):
        where = f"[{number}]"
        if isinstance(value, Flaw):
            reading.obscure = True
            reading.complain(where, "", "", value.why, at=value.place)
        elif value is not None:
            reading.take(where, value)
    return reading.content(path, places)


class _Complaint(NamedTuple):
    """A problem whose line is still to be looked up; `plain`: its value is no text."""

    severity: Severity
    where: str  # a path as `kproxy.watch.manifests.places` reads it
    at: Place | None  # known already
    object: str
    field: str
    why: str
    value: str
    plain: bool = False


@dataclass(slots=True)
class _Reading:
    """A file of which a part has been read."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    rejected: set[Ref] = field(default_factory=set)
    obscure: bool = False
    complaints: list[_Complaint] = field(default_factory=list)
    unused: dict[str, _Complaint] = field(default_factory=dict)
    ignored: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def take(self, where: str, document: object) -> None:
        """Take in a document: an object, or a List of them."""
        for at, value in _flattened(where, document):
            if isinstance(value, _Unclear):
                self.obscure = True
                self.complain(at, "", value.field, value.why, value=value.value)
            else:
                self._take_object(at, value)

    def complain(
        self,
        where: str,
        what: str,
        name: str,
        why: str,
        *,
        value: object = None,
        at: Place | None = None,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Note a problem of the object at `where`; `name` is the field."""
        at_field = f"{where}.{name}" if name else where
        plain = isinstance(value, bool | int | float)
        made = _Complaint(severity, at_field, at, what, name, why, shown(value), plain)
        self.complaints.append(made)

    def warn(self, where: str, what: str, name: str, why: str, value: object = None) -> None:
        """Note what has no effect, or not the one that its author expects."""
        self.complain(where, what, name, why, value=value, severity=Severity.WARNING)

    def _take_object(self, where: str, document: Mapping[str, object]) -> None:
        kind = kind_of(document)
        try:
            made = from_builtins(document)
        except InvalidObject as error:
            self._reject(where, kind, error, document)
            return
        if made is None or kind is None:
            self._take_unused(where, document)
            return
        ref = Ref(kind, made.key)
        if ref in self.objects:
            self.complain(where, str(ref), "", "is in this file twice; the first one counts")
            return
        self.objects[ref] = made
        self._look_at_names(where, ref, document)
        for name, why, value in disappointments(made, document):
            self.warn(where, str(ref), name, why, value)
        if isinstance(made, EndpointSlice) and (why_not := without_service(document)):
            self._leave_out(kind.value, document, f"its metadata.labels have {why_not}")

    def _look_at_names(self, where: str, ref: Ref, document: Mapping[str, object]) -> None:
        for path, why in misnamed(ref.kind, document):
            self.warn(where, str(ref), path.removeprefix("."), why)

    def _reject(
        self,
        where: str,
        kind: Kind | None,
        error: InvalidObject,
        document: Mapping[str, object],
    ) -> None:
        key = error.key
        for each in refusals(document, error):
            name, why = _blamed(each)
            self.complain(where, f"{error.kind} {key}", name, why, value=each.value)
        ref = None if kind is None else Ref(kind, key)
        if ref is not None:
            self._look_at_names(where, ref, document)
        if ref is None or "?" in key:  # the parser's word for a name that cannot be told
            self.obscure = True
            return
        self.rejected.add(ref)
        name, why = _blamed(error)
        self._leave_out(ref.kind.value, document, f"its {name} {why}" if name else why)

    def _take_unused(self, where: str, document: Mapping[str, object]) -> None:
        self.ignored += 1
        version, kind = str(document["apiVersion"]), str(document["kind"])
        what = f"{kind} {_key_text(document)}"
        if (version, kind) == ("v1", "Endpoints"):
            why = "is not used; Services get their endpoints from EndpointSlices"
            complaint = _Complaint(Severity.WARNING, where, None, what, "", why, "")
            self.unused.setdefault(kind, complaint)
            self._leave_out(kind, document, f"it {why}")
            return
        if is_misspelt_list(kind) and "items" in document:
            self.warn(where, what, "kind", "is passed over with its items; write List", kind)
            return
        miss = near_miss(version, kind)
        if miss is None:
            return
        value = document[miss.field]
        if (version, kind) in _OLD_VERSIONS:  # whole clusters were written down in them
            at = f"{where}.{miss.field}"
            complaint = _Complaint(
                Severity.WARNING, at, None, what, miss.field, miss.why, shown(value)
            )
            self.unused.setdefault(f"{version} {kind}", complaint)
        else:
            self.warn(where, what, miss.field, miss.why, value)
        why = f"its {miss.field} {shown(value)} {miss.why}"
        self._leave_out(miss.meant.value, document, why)

    def _leave_out(self, what: str, document: Mapping[str, object], why: str) -> None:
        metadata = _mapping(document.get("metadata"))
        key = reported_key(Kind.ENDPOINT_SLICE, metadata.get("namespace"), metadata.get("name"))
        label = _mapping(metadata.get("labels")).get(SERVICE_NAME_LABEL)
        if what == Kind.SERVICE.value:
            claimed = destinations(document)
            if claimed:
                self.left_out.append(LeftOut(what, key, key, why, destinations=claimed))
        elif what in (Kind.ENDPOINT_SLICE.value, "Endpoints"):
            name = key.name if what == "Endpoints" else label if isinstance(label, str) else ""
            service = ObjectKey(key.namespace, name) if name else None
            self.left_out.append(LeftOut(what, key, service, why))

    def content(self, path: str, places: Callable[[Iterable[str]], Mapping[str, Found]]) -> Content:
        """Return what has been read, with the lines of the problems looked up."""
        told = self.complaints[:MAX_PROBLEMS]
        unknown = {c.where for c in (*told, *self.unused.values()) if c.at is None}
        found = places(unknown) if unknown else {}

        def problem(complaint: _Complaint) -> Problem:
            severity, where, at, what, name, why, value, plain = complaint
            there = found.get(where)
            line, column = at or (there.place if there else (None, None))
            written = there.written[:_LONGEST_VALUE] if there and plain else ""
            return Problem(severity, path, line, column, what, name, why, written or value)

        problems = [problem(complaint) for complaint in told]
        more = self.complaints[MAX_PROBLEMS:]
        if more:
            worst = Severity.ERROR if any(c.severity is Severity.ERROR for c in more) else None
            why = f"{len(more)} more problems in this file"
            problems.append(Problem(worst or Severity.WARNING, path, None, None, "", "", why, ""))
        unused = {name: problem(complaint) for name, complaint in self.unused.items()}
        # A rejected object that is also there in a valid form is a plain duplicate.
        rejected = frozenset(self.rejected - self.objects.keys())
        return Content(
            self.objects,
            rejected,
            self.obscure,
            tuple(problems),
            unused,
            self.ignored,
            tuple(each._replace(where=path) for each in self.left_out),
        )


class _Unclear(NamedTuple):
    """Something that is no API object."""

    field: str
    why: str
    value: object


def _flattened(
    where: str, document: object
) -> Iterator[tuple[str, Mapping[str, object] | _Unclear]]:
    """Yield the objects of a document, each with where it stands: itself, or a List's items."""
    waiting: list[tuple[str, object, str, str]] = [(where, document, "", "")]
    while waiting:
        at, raw, version, kind = waiting.pop()
        try:
            value = item_value(raw)
        except BadText as error:
            yield at, _Unclear("", error.why, None)
            continue
        if not isinstance(value, dict):
            yield at, _Unclear("", "must be an object with apiVersion and kind", value)
            continue
        if kind and "kind" not in value:  # the API leaves both out in the items of a ServiceList
            value = {**value, "apiVersion": version, "kind": kind}
        unclear = _header_problem(value)
        if unclear:
            yield at, unclear
        elif not str(value["kind"]).endswith("List") or "items" not in value:
            yield at, value
        elif at.count(".items[") >= MAX_LIST_DEPTH:
            yield at, _Unclear("items", "a List in too many others", None)
        elif value["items"] is not None and not isinstance(value["items"], list):
            yield at, _Unclear("items", "must be a list", value["items"])
        else:
            item_kind = str(value["kind"]).removesuffix("List")
            waiting += reversed(
                [
                    (f"{at}.items[{i}]", item, str(value["apiVersion"]), item_kind)
                    for i, item in enumerate(value["items"] or ())
                ]
            )


def _header_problem(document: Mapping[str, object]) -> _Unclear | None:
    for name in ("apiVersion", "kind"):
        value = document.get(name)
        if not isinstance(value, str) or not value:
            near = [key for key in document if key.strip().casefold() == name.casefold()]
            unset = f"must be set; write {name}, not {near[0]}" if near else "must be set"
            return _Unclear(name, unset if value is None else "must be text", value)
    return None


def _blamed(error: InvalidObject) -> tuple[str, str]:
    """Return the field, "" if none is to blame, and what to say of it."""
    name = "" if error.field.startswith("(") else error.field
    unfilled = placeholder(error.value)
    return name, f"{error.why}; it {unfilled}" if unfilled not in error.why else error.why


def _listed_items(value: object) -> list[object] | None:
    items = value.get("items") if isinstance(value, dict) else None
    return items if isinstance(items, list) else None


def _key_text(document: Mapping[str, object]) -> str:
    metadata = _mapping(document.get("metadata"))
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or '?'}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
