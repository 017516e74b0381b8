"""Listeners: what closes with them, what stays, and what happens when nothing more can open."""

import asyncio
import contextlib
import gc
import os
import resource
import socket
from dataclasses import replace

import pytest

from kproxy.run.http.connection import Connection
from kproxy.run.http.message import Response
from kproxy.run.http.server import HttpServer
from kproxy.run.http.sockets import Address, bind_one_family
from tests.support.open_files import open_files, opened_since
from tests.support.waiting import LONGEST_S
from tests.unit.run.http.scene import (
    LOOPBACK,
    NOON,
    PATIENT,
    asynchronous,
    connected,
    get,
    listening,
    once,
    page,
    serving,
    until,
)

HASTY = replace(PATIENT, pause_s=0.01)


@asynchronous
async def test_a_closed_listener_ends_its_own_connections_and_frees_its_port():
    server = HttpServer(PATIENT, lambda: NOON)
    async with listening(server) as stays, connected(stays) as staying:
        await staying.ask()
        bound = bind_one_family(Address(LOOPBACK, 0))
        goes = Address(*bound.getsockname())
        listener = server.listen(bound, page)
        async with connected(goes) as going, connected(goes) as arriving:
            await going.ask()
            listener.close()
            again = server.listen(bind_one_family(goes), page)
            await going.end()
            await arriving.end()
            async with connected(goes) as late:
                assert (await late.ask())[0] == 200
            again.close()
        assert (await staying.ask())[0] == 200


@pytest.mark.parametrize("turns", range(5))
@asynchronous
async def test_who_arrives_as_the_listener_closes_is_not_left_hanging(turns):
    server = HttpServer(PATIENT, lambda: NOON)
    bound = bind_one_family(Address(LOOPBACK, 0))
    address = Address(*bound.getsockname())
    listener = server.listen(bound, page)
    with socket.create_connection(address) as raw:  # blocks the loop: nothing is accepted meanwhile
        raw.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.close()
        async with asyncio.timeout(LONGEST_S):
            with contextlib.suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(raw, 1) == b""


@asynchronous
async def test_a_closed_listener_answers_nothing_more():
    seen = []

    def closing(request):
        seen.append(request.path)
        listener.close()
        return Response(200, (), b"")

    bound = bind_one_family(Address(LOOPBACK, 0))
    listener = HttpServer(PATIENT, lambda: NOON).listen(bound, closing)
    async with connected(Address(*bound.getsockname())) as client:
        await client.send(get("/") * 10)
        await client.end()
        assert seen == ["/"]


@asynchronous
async def test_without_descriptors_it_waits_and_goes_on(caplog):
    async with serving(limits=HASTY) as address:
        with socket.socket() as raw:
            raw.setblocking(False)
            with few_descriptors():
                await asyncio.get_running_loop().sock_connect(raw, address)
                await until(lambda: caplog.records)
                for _ in range(10):
                    await asyncio.sleep(0)
            await asyncio.get_running_loop().sock_sendall(raw, get("/", "Connection: close"))
            async with asyncio.timeout(LONGEST_S):
                got = await asyncio.get_running_loop().sock_recv(raw, 9)
    assert got == b"HTTP/1.1 "
    assert [record.getMessage() for record in caplog.records] == [
        "connections wait, none can be accepted: Too many open files; trying again"
    ]


class Counting(HttpServer):
    """Counts how often a connection could not be accepted."""

    refusals = 0

    def cannot_accept(self, error):
        self.refusals += 1
        super().cannot_accept(error)


@asynchronous
async def test_many_listeners_complain_once(caplog):
    server = Counting(HASTY, lambda: NOON)
    bound = [bind_one_family(Address(LOOPBACK, 0)) for _ in range(5)]
    listeners = [server.listen(each, page) for each in bound]
    waiting = [socket.socket() for _ in bound]
    with few_descriptors(), contextlib.ExitStack() as stack:
        for raw, each in zip(waiting, bound, strict=True):
            stack.enter_context(raw)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, each.getsockname())
        await until(lambda: server.refusals > 4 * len(bound))
        assert len(caplog.records) == 1
        for listener in listeners:
            listener.close()


@asynchronous
async def test_it_can_be_closed_while_it_waits_for_descriptors(caplog):
    async with serving(limits=HASTY) as address:
        with socket.socket() as raw, few_descriptors():
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, address)
            await until(lambda: caplog.records)
    await asyncio.sleep(0.1)
    assert len(caplog.records) == 1


@contextlib.contextmanager
def few_descriptors():
    """Let this process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, open_files()))
    fillers = [os.dup(0) for _ in range(highest - len(open_files()) + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in fillers:
            os.close(descriptor)


@asynchronous
async def test_nothing_of_a_connection_is_kept_when_it_is_gone():
    def kept():
        gc.collect()
        return sum(isinstance(each, (Connection, asyncio.Transport)) for each in gc.get_objects())

    before = kept()
    async with serving() as address:
        await once(address, get("/"))
        await once(address, get("/", "Connection: close"))
        await once(address, b"garbage")
        await until(lambda: kept() <= before)


@asynchronous
async def test_nothing_stays_open():
    before = open_files()
    async with serving() as address:
        for message in (get("/"), b"garbage\r\n\r\n", get("/", "Content-Length: 9"), b"", b"GET /"):
            await once(address, message)
        async with connected(address) as client:
            await client.ask()
    await until(lambda: not opened_since(before))


@asynchronous
async def test_a_socket_that_cannot_listen_is_closed():
    before = open_files()
    first = bind_one_family(Address(LOOPBACK, 0))
    second = bind_one_family(Address(*first.getsockname()))  # possible while none of them listens
    server = HttpServer(PATIENT, lambda: NOON)
    listener = server.listen(first, page)
    with pytest.raises(OSError, match="in use"):
        server.listen(second, page)
    listener.close()
    assert not opened_since(before)
