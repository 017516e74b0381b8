"""The host's networks are told as they come and go, whatever goes wrong in between."""

import asyncio
import contextlib
import ipaddress
import logging
import os

from kproxy.core.store import Connected
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.networks import HostNetworks

A, B = (frozenset({ipaddress.ip_network(text)}) for text in ("192.0.2.0/24", "198.51.100.0/24"))
REFUSED = BackendError("asking", "not now", transient=True)


class Host:
    """A host whose networks a test sets, and what of them was told."""

    def __init__(self, networks, *, known):
        self.networks = networks
        self.refusals = 0
        self.listeners = []
        self.told = asyncio.Queue()
        self.looked = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.follower = HostNetworks(
            self.read, self.listen, self.told.put_nowait, known=known, pause_s=0, retry_s=0
        )

    def read(self):
        self._loop.call_soon_threadsafe(self.looked.put_nowait, None)
        return self.networks

    def listen(self):
        if self.refusals:
            self.refusals -= 1
            raise REFUSED
        self.listeners.append(Listener())
        return self.listeners[-1]

    def changes_to(self, networks):
        self.networks = networks
        self.listeners[-1].tell()


class Listener:
    """Events through a pipe."""

    def __init__(self):
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.broken = False

    def tell(self):
        os.write(self._write, b"!")

    def fileno(self):
        return self._read

    def drain(self):
        if self.broken:
            raise REFUSED
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 100)

    def close(self):
        for end in (self._read, self._write):
            os.close(end)


@contextlib.asynccontextmanager
async def following(host):
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(host.follower.run())
        yield
        task.cancel()


def test_only_other_networks_are_told():
    async def scene():
        host = Host(A, known=A)
        async with following(host):
            await host.looked.get()
            host.changes_to(A)
            await host.looked.get()
            host.changes_to(A | B)
            assert await host.told.get() == (Connected(A | B),)
            host.changes_to(B)
            assert await host.told.get() == (Connected(B),)
        assert host.told.empty()

    asyncio.run(scene())


def test_what_changed_before_anybody_listened_is_told():
    async def scene():
        host = Host(B, known=A)
        async with following(host):
            assert await host.told.get() == (Connected(B),)

    asyncio.run(scene())


def test_a_refusal_is_said_once_and_tried_again(caplog):
    async def scene():
        host = Host(A, known=frozenset())
        host.refusals = 3
        async with following(host):
            assert await host.told.get() == (Connected(A),)
            host.listeners[0].broken = True
            host.refusals = 3
            host.changes_to(B)
            assert await host.told.get() == (Connected(B),)
        assert len(host.listeners) == 2

    with caplog.at_level(logging.ERROR):
        asyncio.run(scene())
    line = "asking: not now; the networks that were last known count"
    assert [record.getMessage() for record in caplog.records] == [line, line]
