"""The API itself: who may ask what, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tests.support.fake_api import events, options, selectors
from tests.support.fake_api.faults import Answer, plain, refused
from tests.support.fake_api.listing import list_objects
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.requests import Request
from tests.support.fake_api.resources import EVENTS, RESOURCES, Resource
from tests.support.fake_api.statuses import (
    Refusal,
    Status,
    already_exists,
    bad_request,
    forbidden,
    no_such_resource,
    not_found,
    unauthorized,
    unsupported_media_type,
)
from tests.support.fake_api.store import Document, Happening, Store, Version, key_of
from tests.support.fake_api.watching import Stream

ADMINISTRATOR = "admin"
ANONYMOUS = "system:anonymous"
Permission = tuple[str, str, str]  # group, resource, verb

# ClusterRole system:node-proxier, as the API server makes it at its start.
NODE_PROXIER: frozenset[Permission] = frozenset(
    [("", name, verb) for name in ("services", "endpoints") for verb in ("list", "watch")]
    + [("", "nodes", verb) for verb in ("get", "list", "watch")]
    + [(g, "events", v) for g in ("", "events.k8s.io") for v in ("create", "patch", "update")]
    + [("discovery.k8s.io", "endpointslices", verb) for verb in ("list", "watch")]
    + [("networking.k8s.io", "servicecidrs", verb) for verb in ("list", "watch")]
)
_PATCHES = ("application/merge-patch+json", "application/strategic-merge-patch+json")


@dataclass(slots=True)
class Api:
    """The state of the server and its answers.

    `users` are known by their token. The administrator may do everything, everybody else what
    `permissions` say.
    """

    store: Store = field(default_factory=Store)
    users: dict[str, str] = field(default_factory=dict)
    permissions: set[Permission] = field(default_factory=lambda: set(NODE_PROXIER))
    missing: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=lambda: {"default", "kube-system"})
    streaming: Streaming = Streaming.SERVED
    streams: set[Stream] = field(default_factory=set)

    def user_of(self, request: Request) -> str | None:
        """Return who asks, None if the server does not believe it."""
        if request.bearer is None:
            return ANONYMOUS
        return self.users.get(request.bearer)

    def answer(self, request: Request, user: str | None) -> Answer | Stream:
        """Return the answer to a request; a stream is to be opened and followed."""
        try:
            if user is None:
                raise Refusal(unauthorized())
            self._authorize(request, user)
            if request.resource is None or request.resource.name in self.missing:
                return self._nothing_there(request)
            return self._serve(request, request.resource)
        except Refusal as refusal:
            return refused(refusal.status)

    def put(self, resource: Resource, document: Document) -> Version:
        """Store an object, and tell those who watch."""
        happening = self.store.put(resource, document)
        if happening is not None:
            self._tell(resource, happening)
        stored = self.store.get(resource, key_of(resource, document))
        assert stored is not None
        return stored

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object, and tell those who watch."""
        self._tell(resource, self.store.delete(resource, (namespace, name)))

    def open(self, stream: Stream) -> None:
        """Let a watch begin: with what it asked for, then with all that happens."""
        stream.begin(self.store, self.streaming)
        self.streams.add(stream)

    def streams_of(self, resource: Resource) -> Iterable[Stream]:
        return [stream for stream in self.streams if stream.resource is resource]

    def _tell(self, resource: Resource, happening: Happening) -> None:
        for stream in self.streams_of(resource):
            stream.tell(happening)

    def _authorize(self, request: Request, user: str) -> None:
        wanted = request.group, request.plural, request.verb
        if user == ADMINISTRATOR or (user != ANONYMOUS and wanted in self.permissions):
            return
        asked = request.resource or Resource(
            request.plural, request.group, "", "", namespaced=bool(request.namespace)
        )
        raise Refusal(
            forbidden(
                asked,
                user=user,
                verb=request.verb,
                namespace=request.namespace,
                name=request.name,
            )
        )

    def _nothing_there(self, request: Request) -> Answer:
        if request.group in {resource.group for resource in RESOURCES.values()}:
            return refused(no_such_resource())
        return plain(404, b"404 page not found\n")

    def _serve(self, request: Request, resource: Resource) -> Answer | Stream:
        if request.verb in ("list", "watch"):
            return self._read(request, resource)
        if request.verb == "get":
            return _json(200, self._held(request, resource).whole())
        if request.verb == "delete":
            self.delete(resource, request.namespace, request.name)
            return _json(200, b'{"kind":"Status","apiVersion":"v1","status":"Success"}')
        return self._write(request, resource)

    def _read(self, request: Request, resource: Resource) -> Answer | Stream:
        asked = options.parse(request.query, self.streaming)
        selector = selectors.parse(
            resource,
            request.namespace,
            labels=request.query.get("labelSelector", ""),
            fields=request.query.get("fieldSelector", ""),
        )
        if asked.watch:
            _ = asked.number  # a version that is no number is refused before the stream begins
            return Stream(resource, selector, asked)
        return _json(200, list_objects(self.store, resource, selector, asked))

    def _write(self, request: Request, resource: Resource) -> Answer:
        document = _document(request, resource)
        if request.verb == "create":
            key = key_of(resource, document)
            if resource.namespaced and request.namespace not in self.namespaces:
                raise Refusal(_no_namespace(request.namespace))
            if resource is EVENTS:
                events.check_new(document)
            if self.store.get(resource, key) is not None:
                raise Refusal(already_exists(resource, key[1]))
            return _json(201, self.put(resource, document).whole())
        held = self._held(request, resource).document()
        if request.verb == "patch":
            document = _merged(held, document)
        if resource is EVENTS:
            events.check_change(held, document)
        return _json(200, self.put(resource, document).whole())

    def _held(self, request: Request, resource: Resource) -> Version:
        held = self.store.get(resource, (request.namespace, request.name))
        if held is None:
            raise Refusal(not_found(resource, request.name))
        return held


def _document(request: Request, resource: Resource) -> Document:
    """Return the body of a write. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if request.verb == "patch" and kind not in _PATCHES:
        raise Refusal(unsupported_media_type("415: Unsupported Media Type", {}))
    if request.verb != "patch" and kind != "application/json":
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
        raise Refusal(unsupported_media_type(message))
    try:
        document = msgspec.json.decode(request.body, type=Document)
    except msgspec.DecodeError as error:
        raise Refusal(bad_request(f"the object provided is unrecognized: {error}")) from error
    if request.verb != "patch":
        _check_address(request, resource, document)
    return document


def _check_address(request: Request, resource: Resource, document: Document) -> None:
    """Let the namespace of the path be that of the object. Raises Refusal."""
    if not isinstance(document.get("metadata"), dict):
        raise Refusal(bad_request("the object provided is unrecognized: no metadata"))
    if not resource.namespaced:
        return
    if document["metadata"].setdefault("namespace", request.namespace) != request.namespace:
        message = (
            "the namespace of the provided object does not match the namespace sent on the request"
        )
        raise Refusal(bad_request(message))


def _merged(old: object, patch: Document) -> Document:
    """Return a document with a JSON merge patch applied (RFC 7396)."""
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = _merged(result.get(name), value)
        else:
            result[name] = value
    return result


def _no_namespace(name: str) -> Status:
    details = {"name": name, "kind": "namespaces"}
    return Status(404, "NotFound", f'namespaces "{name}" not found', details)


def _json(status: int, body: bytes) -> Answer:
    return Answer(status, body if body.endswith(b"\n") else body + b"\n")
