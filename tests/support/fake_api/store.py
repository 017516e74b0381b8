"""Objects with their versions, and what happened to them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.support.fake_api.resources import RESOURCES, Resource
from tests.support.fake_api.selectors import Selector
from tests.support.fake_api.statuses import Refusal, conflict, expired, not_found

Document = dict[str, Any]
Key = tuple[str, str]
CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Version:
    """One object as it was at one version.

    `rest` is its JSON without the opening brace, kind and apiVersion: lists leave these two out,
    watches do not, and neither has to encode the object again.
    """

    resource: Resource
    namespace: str
    name: str
    version: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    rest: bytes

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def path(self) -> str:
        """Return what the storage sorts by."""
        return f"/{self.namespace}/{self.name}" if self.namespace else f"/{self.name}"

    def item(self) -> bytes:
        """Return the JSON that a list shows."""
        return b"{" + self.rest

    def whole(self) -> bytes:
        """Return the JSON that a watch or a get shows."""
        head = f'{{"kind":"{self.resource.kind}","apiVersion":"{self.resource.api_version}",'
        return head.encode() + self.rest

    def document(self) -> Document:
        document: Document = msgspec.json.decode(self.whole())
        return document

    def at(self, version: int) -> Version:
        """Return the same object under another version, as its deletion shows it."""
        document = self.document()
        document["metadata"]["resourceVersion"] = str(version)
        return _version(self.resource, document, version)

    def selected(self, selector: Selector) -> bool:
        return selector.matches(self.labels, self.fields)


@dataclass(frozen=True, slots=True)
class Happening:
    """What a write did: `old` is None for a creation, `new` for a deletion."""

    version: int
    old: Version | None
    new: Version | None


class Store:
    """Everything that the server holds, under one version counter as in etcd."""

    def __init__(self) -> None:
        self.version = 1
        self.forgotten = 0  # what happened up to this version is not known any more
        self._uids = 0
        self._objects: dict[str, dict[Key, Version]] = {name: {} for name in RESOURCES}
        self._history: dict[str, list[Happening]] = {name: [] for name in RESOURCES}

    def get(self, resource: Resource, key: Key) -> Version | None:
        return self._objects[resource.name].get(key)

    def put(self, resource: Resource, given: Mapping[str, Any]) -> Happening | None:
        """Create or replace an object; None if it was like that already.

        Raises Refusal if the given version is not the one that is held.
        """
        metadata = given["metadata"]
        key = key_of(resource, given)
        old = self.get(resource, key)
        if metadata.get("resourceVersion", "") not in ("", str(old.version if old else 0)):
            raise Refusal(conflict(resource, key[1]))
        document = {**given, "metadata": {**metadata, **self._identity(old)}}
        if resource.namespaced:
            document["metadata"]["namespace"] = key[0]
        if old is not None:
            document["metadata"]["resourceVersion"] = str(old.version)
            if _version(resource, document, old.version).rest == old.rest:
                return None
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        new = _version(resource, document, self.version)
        return self._happened(resource, Happening(self.version, old, new))

    def delete(self, resource: Resource, key: Key) -> Happening:
        """Remove an object. Raises Refusal if there is none."""
        old = self.get(resource, key)
        if old is None:
            raise Refusal(not_found(resource, key[1]))
        self.version += 1
        return self._happened(resource, Happening(self.version, old, None))

    def compact(self) -> None:
        """Forget everything that happened until now."""
        self.forgotten = self.version
        for history in self._history.values():
            history.clear()

    def objects(self, resource: Resource, version: int | None = None) -> list[Version]:
        """Return the objects by key, as they were at a version that is still known."""
        objects = dict(self._objects[resource.name])
        if version is not None:
            if version < self.forgotten:
                raise Refusal(expired("The resourceVersion for the provided list is too old."))
            for happening in reversed(self.since(resource, version)):
                old, new = happening.old, happening.new
                if old is not None:
                    objects[old.key] = old
                elif new is not None:
                    del objects[new.key]
        return sorted(objects.values(), key=lambda each: each.path)

    def since(self, resource: Resource, version: int) -> list[Happening]:
        """Return what happened after a version. Raises Refusal if that is not known any more."""
        if version < self.forgotten:
            raise Refusal(expired(f"too old resource version: {version} ({self.forgotten})"))
        return [h for h in self._history[resource.name] if h.version > version]

    def _identity(self, old: Version | None) -> dict[str, object]:
        """Return what the server alone decides about an object's metadata."""
        if old is not None:
            metadata = old.document()["metadata"]
            return {name: metadata[name] for name in ("uid", "creationTimestamp")}
        self._uids += 1
        return {"uid": str(uuid.UUID(int=self._uids)), "creationTimestamp": CREATED}

    def _happened(self, resource: Resource, happening: Happening) -> Happening:
        objects = self._objects[resource.name]
        if happening.new is not None:
            objects[happening.new.key] = happening.new
        elif happening.old is not None:
            del objects[happening.old.key]
        self._history[resource.name].append(happening)
        return happening


def key_of(resource: Resource, document: Mapping[str, Any]) -> Key:
    """Return the namespace and the name under which a document is stored."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "default") if resource.namespaced else ""
    return namespace, metadata["name"]


def _version(resource: Resource, document: Mapping[str, Any], version: int) -> Version:
    metadata = document["metadata"]
    namespace, name = key_of(resource, document)
    shown = {"metadata": metadata, **document}
    for left_out in ("kind", "apiVersion"):
        shown.pop(left_out, None)
    return Version(
        resource=resource,
        namespace=namespace,
        name=name,
        version=version,
        labels=metadata.get("labels") or {},
        fields={
            "metadata.name": name,
            "metadata.namespace": namespace,
            **{path: _field(document, path, unset) for path, unset in resource.fields.items()},
        },
        rest=msgspec.json.encode(shown)[1:],
    )


def _field(document: Mapping[str, Any], path: str, unset: str) -> str:
    outer, inner = path.split(".")
    return str((document.get(outer) or {}).get(inner, unset))
