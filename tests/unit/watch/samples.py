"""Small manifests, and a source that is followed while a test changes its folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kproxy.core.objects import Kind, Object
from kproxy.core.store import Change, Store
from kproxy.watch.manifests.source import ManifestSource
from tests.support.waiting import LONGEST_S


def service(name: str, port: int | str = 80, address: str = "10.96.0.1") -> str:
    """Return a Service document of seven lines; its port's number is on the sixth."""
    return (
        "apiVersion: v1\n"
        "kind: Service\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n"
        f"  clusterIP: {address}\n"
        f"  ports: [{{port: {port}}}]\n"
        "---\n"
    )


def services(objects) -> dict[str, int]:
    """Return the first port of each Service by the name of the Service."""
    return {o.key.name: o.ports[0].port for o in objects if hasattr(o, "cluster_ips")}


class Following:
    """What a running source has delivered."""

    def __init__(self, source: ManifestSource) -> None:
        self.source = source
        self.batches: list[tuple[Change, ...]] = []
        self.store = Store()

    async def run(self) -> None:
        async for batch in self.source.batches():
            self.batches.append(batch)
            for change in batch:
                self.store.apply(change)

    def objects(self) -> list[Object]:
        return [o for kind in Kind for o in self.store.all(kind)]

    def ports(self) -> dict[str, int]:
        return services(self.objects())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; fail with what there is if it never does."""
        deadline = time.monotonic() + LONGEST_S
        while not condition():
            assert time.monotonic() < deadline, f"never came; there is {self.ports()}"
            await asyncio.sleep(0.01)

    async def listed(self) -> None:
        """Wait for the first list."""
        await self.until(lambda: self.batches)

    async def until_ports(self, **ports: int) -> None:
        await self.until(lambda: self.ports() == ports)


@contextlib.asynccontextmanager
async def following(folder: Path) -> AsyncIterator[Following]:
    """Follow a folder with the node n1 until the block ends."""
    source = ManifestSource(folder, node_name="n1", log=logging.getLogger("manifests"))
    follower = Following(source)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(folder, story):
    """Follow a folder while `story(follower)` changes it."""

    async def told():
        async with following(folder) as follower:
            await follower.listed()
            await story(follower)

    asyncio.run(told())


def put(path, text):
    """Replace a file as careful writers do."""
    new = path.with_name(".new")
    new.write_text(text)
    new.rename(path)


def log_lines(caplog, level=logging.DEBUG):
    return [r.getMessage() for r in caplog.records if r.name == "manifests" and r.levelno >= level]
