"""A complete list of one resource, put together from pages or from the start of a watch."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from kproxy.core.misshapen import reported_key
from kproxy.core.objects import InvalidObject, Kind, Object, ObjectKey
from kproxy.core.parse import from_json
from kproxy.watch.api.body import Broken, Silent
from kproxy.watch.api.condition import refusal
from kproxy.watch.api.errors import Garbled
from kproxy.watch.api.stream import Event, ResourceReader, Watch


@dataclass(slots=True)
class Listing:
    """What there is: objects, those that are refused and why, and the version of it all."""

    kind: Kind
    objects: dict[ObjectKey, Object] = field(default_factory=dict)
    refused: dict[ObjectKey, str] = field(default_factory=dict)
    version: str = ""

    def add(self, raw: msgspec.Raw) -> None:
        """Take an object in, or note that it is invalid. Raises Garbled for one of another kind."""
        try:
            made = from_json(self.kind, raw)
        except InvalidObject as error:
            if error.field == "kind":
                raise Garbled(f"the API server sends a {error.value!r} as {error.kind}") from error
            self.objects.pop(error.key, None)
            self.refused[error.key] = refusal(error)
            return
        self.objects[made.key] = made
        self.refused.pop(made.key, None)

    def remove(self, key: ObjectKey) -> None:
        """Forget an object that is gone again."""
        self.objects.pop(key, None)
        self.refused.pop(key, None)


def in_pages(kind: Kind, reading: ResourceReader, *, in_one: bool) -> Listing:
    """Return what the pages of a list hold. Raises ApiError."""
    listing = Listing(kind)
    for items, version in reading.pages(in_one=in_one):
        for raw in items:
            listing.add(raw)
        listing.version = version
    return listing


def streamed(kind: Kind, watch: Watch) -> Listing | None:
    """Return what a watch begins with, up to the bookmark that ends the list.

    None if that bookmark does not come: the server took no notice of what it was asked. Raises
    ApiError.
    """
    listing = Listing(kind)
    try:
        for events in watch.batches:
            for event in events:
                if event.type == "BOOKMARK":
                    metadata = watch.metadata(event)
                    listing.version = metadata.resource_version
                    if not listing.version:
                        raise watch.garbled("sends a bookmark without a version")
                    return listing if metadata.ends_list else None
                _take(listing, watch, event)
    except Silent:
        return None
    except Broken as error:
        raise watch.broken_off(error) from error
    raise watch.broken_off("ends the watch before the list is complete")


def _take(listing: Listing, watch: Watch, event: Event) -> None:
    match event.type:
        case "ADDED" | "MODIFIED":
            listing.add(event.object)
        case "DELETED":
            metadata = watch.metadata(event)
            listing.remove(reported_key(listing.kind, metadata.namespace, metadata.name))
        case "ERROR":
            raise watch.error(event)
        case other:
            raise watch.garbled(f"sends an event {other!r}")
