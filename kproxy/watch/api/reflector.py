"""Follows one resource: lists it, watches it, and starts over where it must."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing

from kproxy.core.misshapen import reported_key
from kproxy.core.objects import InvalidObject
from kproxy.core.parse import from_json
from kproxy.core.store import Deleted, Upserted
from kproxy.ports.source import SourceState
from kproxy.watch.api.body import Broken, Silent
from kproxy.watch.api.condition import Condition
from kproxy.watch.api.errors import ApiError, Garbled
from kproxy.watch.api.inbox import Inbox, SingleChange
from kproxy.watch.api.listing import Listing, in_pages, streamed
from kproxy.watch.api.resources import Resource
from kproxy.watch.api.stream import Event, Metadata, ResourceReader, Watch
from kproxy.watch.api.times import Absence, Backoff, Times

# After these the version that was reached is as good as before; after others it may be to blame.
_NO_FAULT_OF_THE_VERSION = (0, 401, 403, 429, 502, 503, 504)
_NO_STREAMING = (400, 422)

# An API server takes objects that nest 10,000 levels deep, in `managedFields` and from anybody, and
# each level is one of recursion (100 bytes of stack) even for what is passed over.
LEVELS = 11_000


class Abilities:
    """What the API server was found not to be able to do. Shared by all that ask it."""

    def __init__(self, log: logging.Logger) -> None:
        self.streams_lists = True
        self._log = log

    def no_streaming(self) -> None:
        """Note that lists come in pages only."""
        if self.streams_lists:
            self._log.info("the API server does not stream lists; asking for pages instead")
        self.streams_lists = False


class Reflector:
    """Brings the objects of one resource into an inbox, until told to stop. Blocks."""

    def __init__(
        self,
        resource: Resource,
        reading: ResourceReader,
        inbox: Inbox,
        condition: Condition,
        *,
        abilities: Abilities,
        times: Times,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._resource = resource
        self._reading = reading
        self._inbox = inbox
        self._condition = condition
        self._abilities = abilities
        self._times = times
        self._clock = clock
        self._backoff = Backoff(
            times.backoff_first_s,
            times.backoff_most_s,
            clock=clock,
            chance=chance,
            reset_s=times.backoff_reset_s,
        )
        self._absence = Absence(times, clock=clock, chance=chance)
        self._version = ""  # "" until there is a list, and when it has to be listed again
        self._in_one = False

    def run(self, stopping: threading.Event) -> None:
        """Follow the resource until `stopping`; whoever sets it closes the session, too."""
        sys.setrecursionlimit(max(LEVELS, sys.getrecursionlimit()))
        while not stopping.is_set():
            try:
                self._follow(self._opened())
            except ApiError as error:
                if stopping.is_set():
                    return
                pause_s = self._failed(error)
                self._inbox.rouse()  # the first delivery does not wait for a kind that fails
                stopping.wait(pause_s)

    def _opened(self) -> Watch:
        """Return a watch that goes on from what is known, after a list if nothing is."""
        if self._version:
            return self._reading.watch(self._version)
        found = None
        if self._abilities.streams_lists and not self._in_one:
            found = self._streamed()
        if found is not None:
            listing, watch = found
            self._put(listing)
            return watch
        self._put(in_pages(self._resource.kind, self._reading, in_one=self._in_one))
        return self._reading.watch(self._version)

    def _streamed(self) -> tuple[Listing, Watch] | None:
        """Return a list and the watch it came with, None if the server wants to be asked for pages.

        Status 500: its etcd is not set up for this. It need not stay so, unlike the rest.
        """
        try:
            with ExitStack() as undo:
                watch = undo.enter_context(closing(self._reading.list_and_watch()))
                listing = streamed(self._resource.kind, watch)
                if listing is not None:
                    undo.pop_all()
                    return listing, watch
        except ApiError as error:
            if error.status not in (*_NO_STREAMING, 500):
                raise
            if error.status == 500:
                return None
        self._abilities.no_streaming()
        return None

    def _put(self, listing: Listing) -> None:
        self._in_one = False
        self._version = listing.version
        self._condition.listed(listing.objects.keys(), listing.refused)
        self._inbox.replace(self._resource.kind, listing.objects)

    def _follow(self, watch: Watch) -> None:
        """Take in what a watch says, to its end. Raises ApiError if it ended for a reason."""
        self._condition.connected()
        self._absence.seen()
        opened = self._clock()
        silent = False
        try:
            for events in watch.batches:
                self._take(watch, events)
                self._condition.heard()
        except Silent:
            silent = True
        except Broken:
            pass  # as good as an end: the next watch goes on from the last complete event
        finally:
            watch.close()
            self._condition.reconnecting()
        lasted_s = self._clock() - opened
        mute = not watch.said_something
        if mute and lasted_s < self._times.hasty_s:
            raise watch.broken_off("ends the watch as soon as it begins")
        if silent or (mute and lasted_s >= self._times.mute_s):
            self._condition.silent(self._times.idle_s if silent else lasted_s)
            if mute:
                self._version = ""  # it may be one that the server has not come to yet

    def _take(self, watch: Watch, events: list[Event]) -> None:
        changes: list[SingleChange] = []
        try:
            for event in events:
                if event.type == "ERROR":
                    raise watch.error(event)
                metadata = watch.metadata(event)
                if event.type != "BOOKMARK":
                    changes.append(self._change(watch, event, metadata))
                self._version = metadata.resource_version or self._version
        finally:
            if changes:
                self._inbox.change(self._resource.kind, changes)

    def _change(self, watch: Watch, event: Event, metadata: Metadata) -> SingleChange:
        """Return what an event changes.

        An object that became invalid is taken away, although its last valid version is still
        known: so every node does the same, whatever it saw before, and after a restart as before.
        (A folder of manifests keeps that version: there a person is typing. Here a server has
        accepted what we refuse, and it will not be put right in a minute.)
        """
        kind = self._resource.kind
        if event.type == "DELETED":
            key = reported_key(kind, metadata.namespace, metadata.name)
            self._condition.accept(key, exists=False)
            return Deleted(kind, key)
        if event.type not in ("ADDED", "MODIFIED"):
            raise watch.garbled(f"sends an event {event.type!r}")
        try:
            made = from_json(kind, event.object)
        except InvalidObject as error:
            if error.field == "kind" or "?" in error.key:
                raise watch.garbled(f"sends no {kind.value} ({error})") from error
            self._condition.refuse(error)
            return Deleted(kind, error.key)
        self._condition.accept(made.key, exists=True)
        return Upserted(made)

    def _failed(self, error: ApiError) -> float:
        """Decide what to do after an error; return how long to wait before."""
        if self._resource.may_be_missing and error.status in (403, 404):
            known = self._condition.status.lists > 0
            if not known or self._absence.is_certain():
                return self._missing(str(error))
        pause_s = max(self._backoff.next_s(), error.retry_after_s)
        was_in_one, self._in_one = self._in_one, False
        if error.version_is_gone and self._version:
            self._version = ""
            self._condition.outdated()
            return pause_s
        if error.version_is_gone:
            self._in_one = not was_in_one  # the pages of one list did not come fast enough
        if isinstance(error, Garbled) or error.status not in _NO_FAULT_OF_THE_VERSION:
            self._version = ""
        self._condition.failing(str(error), pause_s)
        return pause_s

    def _missing(self, why: str) -> float:
        """Go on as if there were no such objects; return when to ask again."""
        self._version = ""
        already = self._condition.status.state is SourceState.OFF
        self._condition.off(why)  # before anybody sees what follows from it
        if not already:
            self._inbox.replace(self._resource.kind, {})
        return self._absence.next_s()
