"""Watches: what an open one is told."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable, Mapping

import msgspec

from tests.support.fake_api.options import Options, Streaming
from tests.support.fake_api.resources import Resource
from tests.support.fake_api.selectors import Selector
from tests.support.fake_api.statuses import Refusal, Status, too_large_version
from tests.support.fake_api.store import Happening, Store, Version

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class End(enum.Enum):
    """How a watch ends."""

    CLEAN = "the last chunk, as at timeoutSeconds"
    CUT = "the connection is closed in the middle"
    RESET = "the connection is reset"


class Stream:
    """One open watch: what is still to be sent to it."""

    def __init__(self, resource: Resource, selector: Selector, options: Options) -> None:
        self.resource = resource
        self.options = options
        self.queue: asyncio.Queue[bytes | End] = asyncio.Queue()
        self._selector = selector
        self._frozen = False

    def say(self, line: bytes) -> None:
        if not self._frozen:
            self.queue.put_nowait(line)

    def finish(self, end: End) -> None:
        if not self._frozen:
            self.queue.put_nowait(end)

    def freeze(self) -> None:
        """Never say anything again."""
        self._frozen = True

    def tell(self, happening: Happening) -> None:
        """Say what a write means to this watch, if it means anything."""
        if happening.version <= self.options.number:
            return
        old = self._visible(happening.old)
        new = self._visible(happening.new)
        if old is None and new is not None:
            self.say(event("ADDED", new))
        elif old is not None and new is not None:
            self.say(event("MODIFIED", new))
        elif old is not None:
            self.say(event("DELETED", old.at(happening.version)))

    def bookmark(self, version: int, *, initial_end: bool = False) -> None:
        """Say how far this watch has come, if it asked to be told.

        One that asked for what comes after a later version is told nothing until then.
        """
        if self.options.bookmarks and version >= self.options.number:
            self.say(bookmark(self.resource, version, initial_end=initial_end))

    def begin(self, store: Store, streaming: Streaming) -> None:
        """Say what was missed since the version asked for, or everything there is.

        A refusal becomes an event: the answer to a watch has begun by then.
        """
        try:
            if self.options.send_initial and streaming is Streaming.BROKEN:
                raise Refusal(_no_progress())
            self._begin(store, streaming)
        except Refusal as refusal:
            self.say(raw_event("ERROR", refusal.status.document()))
            self.finish(End.CLEAN)

    def _begin(self, store: Store, streaming: Streaming) -> None:
        asked, since = self.options.send_initial, self.options.number
        if asked and since > store.version:
            raise Refusal(too_large_version(since, store.version))
        if since and not asked:
            for happening in store.since(self.resource, since):
                self.tell(happening)
            return
        if asked is False:
            return
        seen = (self._visible(each) for each in store.objects(self.resource))
        for chunk in _chunks(event("ADDED", each) for each in seen if each is not None):
            self.say(chunk)
        if asked or streaming is Streaming.SERVED:
            self.bookmark(store.version, initial_end=True)

    def _visible(self, version: Version | None) -> Version | None:
        return version if version is not None and version.selected(self._selector) else None


def event(kind: str, version: Version) -> bytes:
    """Return the line that tells of an object."""
    return b'{"type":"' + kind.encode() + b'","object":' + version.whole() + b"}\n"


def raw_event(kind: str, document: Mapping[str, object]) -> bytes:
    """Return the line that tells of any document, also of one that no server would store."""
    return msgspec.json.encode({"type": kind, "object": document}) + b"\n"


def bookmark(resource: Resource, version: int, *, initial_end: bool = False) -> bytes:
    """Return the line that only tells a version."""
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    document = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
        **resource.empty,
    }
    return raw_event("BOOKMARK", document)


def _chunks(lines: Iterable[bytes], size: int = 1 << 16) -> Iterable[bytes]:
    """Join lines, so that ten thousand of them are not ten thousand writes."""
    joined: list[bytes] = []
    length = 0
    for line in lines:
        joined.append(line)
        length += len(line)
        if length > size:
            yield b"".join(joined)
            joined, length = [], 0
    if joined:
        yield b"".join(joined)


def _no_progress() -> Status:
    message = (
        "a watch stream was requested by the client but the required storage feature "
        "RequestWatchProgress is disabled"
    )
    return Status(500, "InternalError", message)
