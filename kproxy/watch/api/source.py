"""The API server as a source of objects."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Collection
from functools import partial

from kproxy.core.objects import Kind, Node
from kproxy.core.store import Change
from kproxy.ports.source import WITHOUT_NODE, SourceState, SourceStatus
from kproxy.watch.api.access import Api
from kproxy.watch.api.condition import Condition
from kproxy.watch.api.inbox import Inbox
from kproxy.watch.api.reflector import Abilities, Reflector
from kproxy.watch.api.resources import Resource, followed
from kproxy.watch.api.session import Session
from kproxy.watch.api.stream import ResourceReader
from kproxy.watch.api.times import Times

_NEEDED = (Kind.SERVICE, Kind.ENDPOINT_SLICE)


class ApiSource:
    """Follows Services, EndpointSlices, ServiceCIDRs and the own Node, each in its own thread.

    Or only some of these: `kinds`.
    """

    def __init__(
        self,
        api: Api,
        *,
        node_name: str,
        log: logging.Logger,
        times: Times | None = None,
        kinds: Collection[Kind] = tuple(Kind),
    ) -> None:
        self._api = api
        self._node_name = node_name
        self._log = log
        self._times = times or Times()
        self._resources = [each for each in followed(node_name) if each.kind in kinds]
        self._conditions = {
            resource.kind: Condition(resource.kind, log=log, now=time.time)
            for resource in self._resources
        }
        self._abilities = Abilities(log)

    def status(self) -> tuple[SourceStatus, ...]:
        """Return how each kind is doing. From any thread."""
        return tuple(condition.status for condition in self._conditions.values())

    async def batches(self) -> AsyncIterator[tuple[Change, ...]]:
        """Yield what changes, without end; what changed while the last batch was used is one batch.

        The first batch comes once Services and EndpointSlices are listed, and lists every kind
        that is known by then. It waits for the own Node to have an address, and for an answer on
        ServiceCIDRs, but not for ever: both may come later. When this ends, all connections are
        closed.
        """
        awake = asyncio.Event()
        inbox = Inbox(partial(asyncio.get_running_loop().call_soon_threadsafe, awake.set))
        stopping = threading.Event()
        session = self._api.session()
        try:
            for resource in self._resources:
                threading.Thread(
                    target=self._run,
                    args=(resource, session, inbox, stopping),
                    name=f"follow {resource.kind.value}",
                    daemon=True,
                ).start()
            await self._complete(inbox, awake)
            while not inbox.abandoned:
                awake.clear()
                batch = inbox.take()
                if batch:
                    yield batch
                else:
                    await awake.wait()
            raise RuntimeError("a thread that follows the API server died of a bug")
        finally:
            inbox.close()
            stopping.set()
            session.close()

    async def _complete(self, inbox: Inbox, awake: asyncio.Event) -> None:
        """Wait until there is enough for a first delivery."""
        while not inbox.abandoned and any(self._lacks(inbox, kind) for kind in _NEEDED):
            await awake.wait()
            awake.clear()
        try:
            async with asyncio.timeout(self._times.node_s):
                while not inbox.abandoned and not self._settled(inbox):
                    await awake.wait()
                    awake.clear()
        except TimeoutError:
            self._log.warning(
                "the API server shows no Node named %s with an address (waited %.0f s); until it "
                "does, %s",
                self._node_name,
                self._times.node_s,
                WITHOUT_NODE,
            )

    def _settled(self, inbox: Inbox) -> bool:
        """Say whether nothing more is to be expected soon."""
        nodes = inbox.listed(Kind.NODE) or ()
        has_node = any(isinstance(node, Node) and node.addresses for node in nodes)
        has_answer = (
            not self._lacks(inbox, Kind.SERVICE_CIDR)
            or self._conditions[Kind.SERVICE_CIDR].status.state is SourceState.FAILING
        )
        return has_node and has_answer

    def _lacks(self, inbox: Inbox, kind: Kind) -> bool:
        """Say whether a kind is followed, and was not listed yet."""
        return kind in self._conditions and inbox.listed(kind) is None

    def _run(
        self, resource: Resource, session: Session, inbox: Inbox, stopping: threading.Event
    ) -> None:
        """Follow one resource; the traceback of a bug goes to standard error."""
        reading = ResourceReader(
            resource, session, self._times, clock=time.monotonic, chance=random.random
        )
        reflector = Reflector(
            resource,
            reading,
            inbox,
            self._conditions[resource.kind],
            abilities=self._abilities,
            times=self._times,
            clock=time.monotonic,
            chance=random.random,
        )
        try:
            reflector.run(stopping)
        finally:
            inbox.abandon()
