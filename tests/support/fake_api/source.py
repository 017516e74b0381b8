"""A source that is followed while a test changes, and troubles, its server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from kproxy.core.objects import InvalidObject, Kind, Object, ObjectKey
from kproxy.core.parse import from_builtins
from kproxy.core.store import Change, Store
from kproxy.ports.source import SourceState, SourceStatus
from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.source import ApiSource
from kproxy.watch.api.times import Times
from tests.support.fake_api.resources import (
    ENDPOINT_SLICES,
    NODES,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
)
from tests.support.fake_api.samples import HEADLESS, OTHER_PROXY, node
from tests.support.fake_api.servers import Server
from tests.support.waiting import LONGEST_S

NODE = "n1"
LOGGER = "tests.source"

# Everything that is minutes in a cluster takes a moment here, but for what a busy machine may take.
QUICK = Times(
    answer_s=LONGEST_S,
    idle_s=LONGEST_S,
    hasty_s=0.05,
    backoff_first_s=0.01,
    backoff_most_s=0.1,
    backoff_reset_s=1.0,
    missing_first_s=0.05,
    missing_most_s=0.1,
    doubted_s=0.2,
    node_s=5.0,
)

RESOURCES = {
    Kind.SERVICE: SERVICES,
    Kind.ENDPOINT_SLICE: ENDPOINT_SLICES,
    Kind.NODE: NODES,
    Kind.SERVICE_CIDR: SERVICE_CIDRS,
}

# What kube-proxy asks for, kind by kind.
SELECTORS = {
    Kind.SERVICE: {"labelSelector": f"!{OTHER_PROXY}", "fieldSelector": "spec.clusterIP!=None"},
    Kind.ENDPOINT_SLICE: {"labelSelector": f"!{HEADLESS}"},
    Kind.NODE: {"fieldSelector": f"metadata.name={NODE}"},
    Kind.SERVICE_CIDR: {},
}


def own_node(*, zone: str = "z1"):
    """Return the Node that the source waits for: with an address."""
    document = node(NODE, zone=zone)
    document["status"] = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}
    return document


def held(server: Server) -> dict[Kind, dict[ObjectKey, Object]]:
    """Return what the server has for a proxy, the objects that kproxy refuses left out."""
    return {
        kind: {each.key: each for each in _parsed(server, resource, SELECTORS[kind])}
        for kind, resource in RESOURCES.items()
    }


def _parsed(server: Server, resource: Resource, selector: dict[str, str]) -> list[Object]:
    about = {"apiVersion": resource.api_version, "kind": resource.kind}
    listed = server.admin.list(resource.collection(), **selector)
    parsed = []
    for document in listed:
        with contextlib.suppress(InvalidObject):
            parsed.append(from_builtins({**about, **document}))
    return [each for each in parsed if each is not None]


class Following:
    """What a running source has delivered."""

    def __init__(self, server: Server, source: ApiSource) -> None:
        self._server = server
        self._source = source
        self.batches: list[tuple[Change, ...]] = []
        self.history: list[dict[str, int]] = []  # what `ports` was after each batch
        self.store = Store()

    async def run(self) -> None:
        async with contextlib.aclosing(self._source.batches()) as batches:
            async for batch in batches:
                self.batches.append(batch)
                for change in batch:
                    self.store.apply(change)
                self.history.append(self.ports())

    def status(self, kind: Kind = Kind.SERVICE) -> SourceStatus:
        (found,) = [each for each in self._source.status() if each.kind is kind]
        return found

    def state(self, kind: Kind = Kind.SERVICE) -> SourceState:
        return self.status(kind).state

    def delivered(self) -> dict[Kind, dict[ObjectKey, Object]]:
        return {kind: {each.key: each for each in self.store.all(kind)} for kind in Kind}

    def names(self, kind: Kind = Kind.SERVICE) -> set[str]:
        """Return the names of what was delivered, but for what a cluster has of its own."""
        return {each.key.name for each in self.store.all(kind)} - {"kubernetes"}

    def ports(self) -> dict[str, int]:
        """Return the port of each Service that was delivered."""
        services = self.store.all(Kind.SERVICE)
        return {s.key.name: s.ports[0].port for s in services if s.key.name != "kubernetes"}

    def never_lost(self, name: str) -> bool:
        """Say whether everything that was ever delivered had a Service of this name in it."""
        return all(name in ports for ports in self.history)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; fail with what there is if it never does."""
        deadline = time.monotonic() + LONGEST_S
        while not condition():
            assert time.monotonic() < deadline, f"never came: {self.ports()}, {self.statuses()}"
            await asyncio.sleep(0.005)

    def statuses(self) -> str:
        return "; ".join(
            f"{s.kind.value} {s.state.value} {s.detail} lists={s.lists} again={s.reconnects}"
            for s in self._source.status()
        )

    async def listed(self) -> None:
        """Wait for the first delivery."""
        await self.until(lambda: self.batches)

    async def following(self, kind: Kind = Kind.SERVICE) -> None:
        """Wait until a kind is followed, after trouble too."""
        await self.until(lambda: self.state(kind) is SourceState.FOLLOWING)

    async def same(self) -> None:
        """Wait until what was delivered is what the server has."""
        await self.until(lambda: self.delivered() == held(self._server))


@contextlib.asynccontextmanager
async def following(
    server: Server, kubeconfig: Path, *, times: Times = QUICK
) -> AsyncIterator[Following]:
    """Follow a server until the block ends, and see that nothing of it is left then."""
    api = connect(Access(kubeconfig=str(kubeconfig)))
    source = ApiSource(api, node_name=NODE, log=logging.getLogger(LOGGER), times=times)
    follower = Following(server, source)
    before = set(threading.enumerate())
    task = asyncio.create_task(follower.run())
    try:
        yield follower
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("follow"):
                thread.join(LONGEST_S)
                assert not thread.is_alive(), f"{thread.name} goes on"


Story = Callable[[Following], Awaitable[None]]


def run(
    server: Server,
    folder: Path,
    story: Story,
    *,
    times: Times = QUICK,
    kubeconfig: Path | None = None,
) -> None:
    """Follow a server with our own Node in it while `story(follower)` changes it."""
    file = kubeconfig or server.write_kubeconfig(folder / "kubeconfig")

    async def told() -> None:
        async with following(server, file, times=times) as follower:
            await story(follower)

    asyncio.run(told())


def log_lines(caplog, level: int = logging.DEBUG) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == LOGGER and r.levelno >= level]
