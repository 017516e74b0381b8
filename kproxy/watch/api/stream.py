"""Lists and watches of one resource, as far as their envelopes go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import urllib3

from kproxy.core.misshapen import UNDECODABLE
from kproxy.watch.api.body import Broken, Silent, TooLong, lines, set_patience, whole
from kproxy.watch.api.errors import ApiError, Doing, Garbled, in_stream, not_json
from kproxy.watch.api.resources import Resource
from kproxy.watch.api.session import Session
from kproxy.watch.api.times import Times

PAGE_OBJECTS = 500  # as client-go
MAX_PAGE_BYTES = 256 << 20  # 500 ordinary objects are 2 MiB
_OVERTIME_S = 30.0  # after which a watch that the server should have ended is ended here


class Event(msgspec.Struct):
    """An event of a watch; `type` is the API's word for it."""

    type: str
    object: msgspec.Raw


class _Annotations(msgspec.Struct):
    initial_events_end: str = msgspec.field(name="k8s.io/initial-events-end", default="")


class Metadata(msgspec.Struct, rename="camel"):
    """What identifies an object and its version."""

    name: str = ""
    namespace: str | None = None
    resource_version: str = ""
    annotations: _Annotations | None = None

    @property
    def ends_list(self) -> bool:
        """Whether this bookmark says that the list of a watch that began with one is complete."""
        return self.annotations is not None and self.annotations.initial_events_end == "true"


class _Head(msgspec.Struct):
    metadata: Metadata
    kind: str | None = None


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_from: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    kind: str
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


# Made before there are threads: two that decode a type first, at once, end the process by a signal.
_EVENTS = msgspec.json.Decoder(Event)
_HEADS = msgspec.json.Decoder(_Head)
_PAGES = msgspec.json.Decoder(_Page)


class ResourceReader:
    """Asks for one resource."""

    def __init__(
        self,
        resource: Resource,
        session: Session,
        times: Times,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._resource = resource
        self._session = session
        self._times = times
        self._clock = clock
        self._chance = chance
        self._listing = Doing("list", resource.name)
        self._watching = Doing("watch", resource.name)

    def pages(self, *, in_one: bool) -> Iterator[tuple[list[msgspec.Raw], str]]:
        """Yield the objects of each page of a complete list, and the list's version.

        The resource version is left out, so the list is as new as the data: after a fail-over one
        from a server's cache (version 0) may be older than what is known already. `in_one`: ask
        for a single page. Pages that are too large are asked for in halves. Raises ApiError.
        """
        query = dict(self._resource.selector)
        limit = 0 if in_one else PAGE_OBJECTS
        while True:
            if limit:
                query["limit"] = str(limit)
            try:
                page = self._page(query)
            except TooLong as error:
                if limit < 2:
                    raise self._garbled(self._listing, f"sends no list ({error})") from error
                limit //= 2
                continue
            yield page.items or [], page.metadata.resource_version
            if not page.metadata.continue_from:
                return
            if page.metadata.continue_from == query.get("continue"):
                raise self._garbled(self._listing, "sends the same page again")
            query["continue"] = page.metadata.continue_from

    def watch(self, version: str) -> Watch:
        """Return the events since `version`. Raises ApiError."""
        return self._opened({"resourceVersion": version})

    def list_and_watch(self) -> Watch:
        """Return an event for every object there is, the bookmark that ends them, and what follows.

        Raises ApiError; its status is 400 or 422 if the server cannot do this.
        """
        return self._opened({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"})

    def _page(self, query: Mapping[str, str]) -> _Page:
        """Return one page. Raises ApiError and TooLong."""
        response = self._asked(self._listing, query)
        try:
            text = whole(
                response,
                most_bytes=MAX_PAGE_BYTES,
                within_s=self._times.answer_s,
                clock=self._clock,
            )
            page = _PAGES.decode(text)
        except (Broken, Silent) as error:
            raise ApiError(f"cannot {self._listing}: {self._session.server} {error}") from error
        except UNDECODABLE as error:
            raise self._garbled(self._listing, f"sends no list ({error})") from error
        finally:
            response.close()
        if page.kind != f"{self._resource.kind.value}List" or not page.metadata.resource_version:
            raise self._garbled(self._listing, f"sends a {page.kind!r} instead of a list")
        return page

    def _opened(self, query: Mapping[str, str]) -> Watch:
        times = self._times
        lasts_s = times.watch_least_s + self._chance() * (times.watch_most_s - times.watch_least_s)
        fields = {
            **self._resource.selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(round(lasts_s)),
            **query,
        }
        # With a new connection each time nodes spread over API servers behind one address, and a
        # client certificate that was renewed is used.
        response = self._asked(self._watching, fields, endless=True)
        set_patience(response, times.idle_s)
        return Watch(
            response,
            self._watching,
            self._session.server,
            kind=self._resource.kind.value,
            idle_s=times.idle_s,
            until=self._clock() + lasts_s + _OVERTIME_S,
            clock=self._clock,
        )

    def _asked(
        self, doing: Doing, query: Mapping[str, str], *, endless: bool = False
    ) -> urllib3.BaseHTTPResponse:
        response = self._session.request(
            doing, self._resource.path, query=query, answer_s=self._times.answer_s, endless=endless
        )
        content_type = response.headers.get("Content-Type", "")
        coding = response.headers.get("Content-Encoding", "identity")
        if content_type.partition(";")[0].strip() != "application/json" or coding != "identity":
            response.close()
            raise not_json(doing, self._session.server, f"{content_type} ({coding})")
        return response

    def _garbled(self, doing: Doing, why: str) -> Garbled:
        return Garbled(f"cannot {doing}: {self._session.server} {why}")


class Watch:
    """The events of a watch, in the order of the server, which is all that can be relied on.

    `batches` are the events that came together, until the server ends the watch; a bookmark is the
    last of its batch. Going through them raises Broken and Silent, after which the watch may be
    opened again where it ended, and Garbled, after which nothing it said counts. Whoever stops
    half-way can go on later. `said_something`: there was at least one event.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        doing: Doing,
        server: str,
        *,
        kind: str,
        idle_s: float,
        until: float,
        clock: Callable[[], float],
    ) -> None:
        self._response = response
        self._doing = doing
        self._server = server
        self._kind = kind
        self._idle_s = idle_s
        self._until = until
        self._clock = clock
        self.said_something = False
        self.batches = self._read()

    def _read(self) -> Iterator[list[Event]]:
        try:
            for batch in lines(self._response, idle_s=self._idle_s, clock=self._clock):
                events = [self._event(line) for line in batch]
                self.said_something = True
                yield from _ending_with_bookmarks(events)
                if self._clock() > self._until:
                    return
        except TooLong as error:
            raise self.garbled(f"sends {error}") from error

    def metadata(self, event: Event) -> Metadata:
        """Return the metadata of an event's object. Raises Garbled."""
        try:
            head = _HEADS.decode(event.object)
        except UNDECODABLE as error:
            raise self.garbled(f"sends no object ({error})") from error
        if head.kind not in (None, self._kind):
            raise self.garbled(f"sends a {head.kind!r} instead of a {self._kind}")
        return head.metadata

    def error(self, event: Event) -> ApiError:
        """Return what an ERROR event means."""
        return in_stream(self._doing, self._server, event.object)

    def broken_off(self, why: object) -> ApiError:
        """Return the error for a watch that ends too soon."""
        return ApiError(f"cannot {self._doing}: {self._server} {why}")

    def garbled(self, why: str) -> Garbled:
        """Return the error for a watch that makes no sense."""
        return Garbled(f"cannot {self._doing}: {self._server} {why}")

    def close(self) -> None:
        """End the watch."""
        self._response.close()

    def _event(self, line: bytes) -> Event:
        try:
            return _EVENTS.decode(line)
        except UNDECODABLE as error:
            raise self.garbled(f"sends no event ({error})") from error


def _ending_with_bookmarks(events: list[Event]) -> Iterator[list[Event]]:
    """Yield the same events in pieces, so that no piece goes on after a bookmark."""
    start = 0
    for end, event in enumerate(events, 1):
        if event.type == "BOOKMARK" or end == len(events):
            yield events[start:end]
            start = end
