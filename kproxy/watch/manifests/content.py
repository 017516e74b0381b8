"""What one manifest file says: its objects, and what is wrong with it. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kproxy.core.objects import KIND_OF, InvalidObject, Kind, NotProxied, Object, ObjectKey, Service
from kproxy.core.parse import from_builtins, kind_of
from kproxy.text.escaping import shown
from kproxy.text.json import item_value, read_json
from kproxy.text.utf8 import BadText, Flaw, Place, checked_utf8
from kproxy.text.yaml import read_yaml
from kproxy.watch.manifests.places import json_places, yaml_places
from kproxy.watch.manifests.problems import Problem, Severity

MAX_PROBLEMS = 50  # of one file; the rest is counted
MAX_LIST_DEPTH = 8  # Lists inside Lists

_NEEDED_VERSION = {
    ("discovery.k8s.io", "EndpointSlice"): "discovery.k8s.io/v1",
    ("networking.k8s.io", "ServiceCIDR"): "networking.k8s.io/v1",
}


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
    """

    objects: Mapping[Ref, Object]
    rejected: frozenset[Ref]
    obscure: bool
    problems: tuple[Problem, ...]
    unused: Mapping[str, Problem]
    ignored: int

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
    places: Callable[[Iterable[str]], Mapping[str, Place]],
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
    """A problem whose line is still to be looked up."""

    severity: Severity
    where: str  # a path as `kproxy.watch.manifests.places` reads it
    at: Place | None  # known already
    object: str
    field: str
    why: str
    value: str


@dataclass(slots=True)
class _Reading:
    """A file of which a part has been read."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    rejected: set[Ref] = field(default_factory=set)
    obscure: bool = False
    complaints: list[_Complaint] = field(default_factory=list)
    unused: dict[str, _Complaint] = field(default_factory=dict)
    ignored: int = 0

    def take(self, where: str, document: object) -> None:
        """Take in a document: an object, or a List of them."""
        for at, value in _flattened(where, document):
            if isinstance(value, _Unclear):
                self.obscure = True
                self.complain(at, "", value.field, value.why, value=shown(value.value))
            else:
                self._take_object(at, value)

    def complain(
        self,
        where: str,
        what: str,
        name: str,
        why: str,
        *,
        value: str = "",
        at: Place | None = None,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Note a problem of the object at `where`; `name` is the field."""
        at_field = f"{where}.{name}" if name else where
        self.complaints.append(_Complaint(severity, at_field, at, what, name, why, value))

    def _take_object(self, where: str, document: Mapping[str, object]) -> None:
        try:
            made = from_builtins(document)
        except InvalidObject as error:
            self._reject(where, kind_of(document), error)
            return
        if made is None:
            self._take_unused(where, document)
            return
        ref = Ref(KIND_OF[type(made)], made.key)
        if ref in self.objects:
            self.complain(where, str(ref), "", "is in this file twice; the first one counts")
            return
        self.objects[ref] = made
        if isinstance(made, Service):
            for name, why in unallocated(made, document):
                self.complain(where, str(ref), name, why, severity=Severity.WARNING)

    def _reject(self, where: str, kind: Kind | None, error: InvalidObject) -> None:
        key = error.key
        if kind is None or "?" in key:  # the parser's word for a name that cannot be told
            self.obscure = True
        else:
            self.rejected.add(Ref(kind, key))
        name = "" if error.field.startswith("(") else error.field  # "(all)": no field to blame
        value = shown(error.value)
        self.complain(where, f"{error.kind} {key}", name, error.why, value=value)

    def _take_unused(self, where: str, document: Mapping[str, object]) -> None:
        self.ignored += 1
        version, kind = str(document["apiVersion"]), str(document["kind"])
        group = version.rpartition("/")[0]
        if (version, kind) == ("v1", "Endpoints"):
            why = "is not used; Services get their endpoints from EndpointSlices"
        elif (group, kind) in _NEEDED_VERSION:
            why = f"is not used in version {version}; write {_NEEDED_VERSION[group, kind]}"
        else:
            return
        name = _key_text(document)
        self.unused.setdefault(
            f"{version} {kind}",
            _Complaint(Severity.WARNING, where, None, f"{kind} {name}", "", why, ""),
        )

    def content(self, path: str, places: Callable[[Iterable[str]], Mapping[str, Place]]) -> Content:
        """Return what has been read, with the lines of the problems looked up."""
        told = self.complaints[:MAX_PROBLEMS]
        unknown = {c.where for c in (*told, *self.unused.values()) if c.at is None}
        found = places(unknown) if unknown else {}

        def problem(complaint: _Complaint) -> Problem:
            severity, where, at, what, name, why, value = complaint
            line, column = at or found.get(where) or (None, None)
            return Problem(severity, path, line, column, what, name, why, value)

        problems = [problem(complaint) for complaint in told]
        more = self.complaints[MAX_PROBLEMS:]
        if more:
            worst = Severity.ERROR if any(c.severity is Severity.ERROR for c in more) else None
            why = f"{len(more)} more problems in this file"
            problems.append(Problem(worst or Severity.WARNING, path, None, None, "", "", why, ""))
        unused = {name: problem(complaint) for name, complaint in self.unused.items()}
        # A rejected object that is also there in a valid form is a plain duplicate.
        rejected = frozenset(self.rejected - self.objects.keys())
        return Content(self.objects, rejected, self.obscure, tuple(problems), unused, self.ignored)


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
            return _Unclear(name, "must be set" if value is None else "must be text", value)
    return None


def _listed_items(value: object) -> list[object] | None:
    items = value.get("items") if isinstance(value, dict) else None
    return items if isinstance(items, list) else None


def _key_text(document: Mapping[str, object]) -> str:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return "?"
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or '?'}"


def unallocated(service: Service, document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield field and reason for each number that an API server would have allocated.

    Nothing allocates here, so such a Service is reachable in fewer ways than its type promises.
    """
    if service.not_proxied is NotProxied.NO_CLUSTER_IP:
        yield "spec.clusterIP", "is not set and nothing allocates one here: not proxied at all"
    if service.not_proxied is not None:
        return
    spec = document.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    service_type = spec.get("type")
    wants_node_ports = service_type == "NodePort" or (
        service_type == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    for i, port in enumerate(service.ports):
        if wants_node_ports and not port.node_port:
            yield (
                f"spec.ports[{i}].nodePort",
                "is not set and nothing allocates one here: no NodePort",
            )
    needs_health_port = service_type == "LoadBalancer" and service.external_local
    if needs_health_port and not service.health_check_node_port:
        yield (
            "spec.healthCheckNodePort",
            "is not set and nothing allocates one here: no health check for the load balancer",
        )
