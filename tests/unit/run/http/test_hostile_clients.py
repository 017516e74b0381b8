"""Clients that are slow, endless or many cost themselves, and nobody else."""

import asyncio
import contextlib
import socket
import time
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest

from kproxy.run.http.message import Response
from kproxy.run.http.server import HttpServer
from tests.support.open_files import open_files, opened_since
from tests.support.waiting import LONGEST_S
from tests.unit.run.http.scene import (
    NOON,
    PATIENT,
    HeldClock,
    asynchronous,
    connected,
    crowd,
    get,
    listening,
    once,
    serving,
    until,
)

SOON_S = 0.15
HUGE = bytes(2 << 20)  # more than the kernel buffers on the way
CROWD = 1000


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ("says nothing", b""),
        ("stops in its first line", b"GET / HT"),
        ("stops in its headers", b"GET / HTTP/1.1\r\nHost: x\r\n"),
        ("stops in a body", get("/", "Content-Length: 9", method="POST") + b"abc"),
        ("stops in a chunk", get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nab"),
        ("stops in its second request", get("/") + b"GET / HT"),
    ],
)
@asynchronous
async def test_a_request_that_does_not_arrive_in_time_is_cut_off(why, message):
    limits = replace(PATIENT, head_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        await client.send(message)
        await client.end()


@pytest.mark.parametrize("earlier_requests", [0, 1])
@asynchronous
async def test_a_byte_now_and_then_does_not_buy_time(earlier_requests):
    limits = replace(PATIENT, head_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        for _ in range(earlier_requests):
            await client.ask()
        give_up_at = time.monotonic() + LONGEST_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < give_up_at:
                await client.send(b"G")
                await asyncio.sleep(SOON_S / 5)
        assert time.monotonic() < give_up_at


@asynchronous
async def test_the_second_request_has_to_arrive_in_time_too():
    limits = replace(PATIENT, head_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        await client.ask()
        await client.send(b"GET / HT")
        await client.end()


@asynchronous
async def test_a_long_pipeline_has_the_time_of_many_requests():
    def slow(request):
        time.sleep(SOON_S / 10)
        return Response(200, (), b"")

    limits = replace(PATIENT, head_s=SOON_S)
    async with serving(slow, limits) as address, connected(address) as client:
        await client.send(get("/") * 30)
        for _ in range(30):
            await client.answer()


@asynchronous
async def test_an_idle_connection_ends():
    limits = replace(PATIENT, idle_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        await client.ask()
        assert await client.rest() == b""


def test_a_connection_that_is_used_does_not_end():
    limits = replace(PATIENT, head_s=1.0, idle_s=1.0)

    async def scene():
        async with serving(limits=limits) as address, connected(address) as client:
            for _ in range(6):
                asyncio.get_running_loop().now_s += 0.6
                await client.ask()

    with asyncio.Runner(loop_factory=HeldClock) as runner:
        runner.run(scene())


def sized(request):
    """Answer with as many bytes as the path says."""
    return Response(200, (), HUGE[: int(request.path[1:])])


@asynchronous
async def test_who_never_reads_is_cut_off():
    limits = replace(PATIENT, write_s=SOON_S)
    async with serving(sized, limits) as address, connected(address) as client:
        await client.ask("/1")
        open_before = len(open_files())
        await client.send(get(f"/{len(HUGE)}") * 3)
        await until(lambda: len(open_files()) < open_before)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()


@asynchronous
async def test_who_reads_late_gets_everything_and_is_heard_again():
    async with serving(sized) as address, connected(address) as client:
        for _ in range(2):
            await client.send(get(f"/{len(HUGE)}") * 2 + get("/5"))
            await asyncio.sleep(SOON_S)
            for body in (HUGE, HUGE, HUGE[:5]):
                assert (await client.answer())[1] == body
            assert await client.ask("/6") == (200, HUGE[:6])


@pytest.mark.parametrize("size", [60_000, len(HUGE)])
@asynchronous
async def test_who_reads_late_and_closes_gets_everything(size):
    limits = replace(PATIENT, linger_s=SOON_S)
    async with serving(sized, limits) as address, connected(address) as client:
        await client.ask("/1")
        open_before = len(open_files())
        await client.send(get(f"/{size}", "Connection: close"))
        await asyncio.sleep(2 * SOON_S)
        assert len((await client.answer())[1]) == size
        await until(lambda: len(open_files()) < open_before)  # though the client does not close


@asynchronous
async def test_who_does_not_close_after_the_last_answer_is_closed():
    limits = replace(PATIENT, linger_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        await client.ask()
        open_before = len(open_files())
        await client.ask("/", "Connection: close")
        await until(lambda: len(open_files()) < open_before)


@asynchronous
async def test_who_sends_on_after_the_last_answer_is_cut_off():
    limits = replace(PATIENT, linger_s=SOON_S)
    async with serving(limits=limits) as address, connected(address) as client:
        give_up_at = time.monotonic() + LONGEST_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < give_up_at:
                await client.send(b"\0")
                await asyncio.sleep(SOON_S / 5)
        assert time.monotonic() < give_up_at


@asynchronous
async def test_what_comes_after_the_last_answer_is_not_kept():
    async with serving() as address, connected(address) as client:
        await client.send(b"\0")
        tracemalloc.start()
        try:
            for _ in range(500):
                await client.send(HUGE[: 1 << 16])
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 2 << 20


@asynchronous
async def test_who_does_not_read_is_not_read():
    assert await taken_in(sized, get("/500000")) < 1 << 20


@asynchronous
async def test_requests_are_not_hoarded():
    def slow(request):
        time.sleep(0.001)
        return Response(200, (), b"")

    assert await taken_in(slow, get()) < 1 << 20


async def taken_in(handler, message):
    """Return how many bytes of requests a server takes while it has more than enough to do."""
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(handler))
        (sock,) = await crowd(stack, address, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        taken = 0
        for _ in range(500):
            with contextlib.suppress(BlockingIOError):
                taken += sock.send(message * 2000)
            await asyncio.sleep(0)
        return taken


@pytest.mark.parametrize(
    ("status", "begin", "more"),
    [
        (b"431", b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        (b"431", b"", b"G"),
        (b"413", get("/", "Content-Length: 99999999"), b"x"),
        (b"413", get("/", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    ],
)
@asynchronous
async def test_what_does_not_end_is_refused(status, begin, more):
    async with serving() as address:
        got = await once(address, begin + more * ((1 << 20) // len(more)))
        assert got.split()[1] == status


@asynchronous
async def test_a_crowd_that_says_nothing_keeps_no_probe_out():
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(limits=replace(PATIENT, connections=100)))
        before = open_files()
        await crowd(stack, address, CROWD)
        started = time.monotonic()
        async with connected(address) as client:
            assert await client.ask() == (200, b"GET /")
        assert time.monotonic() - started < LONGEST_S / 2
        # Each of the crowd still has its own end of the connection open.
        assert len(opened_since(before)) - CROWD <= 100


@asynchronous
async def test_a_crowd_that_says_a_little_keeps_no_probe_out():
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(limits=replace(PATIENT, connections=100)))
        loop = asyncio.get_running_loop()
        worst_s = 0.0
        for _ in range(10):
            sockets = await crowd(stack, address, CROWD // 10)
            for sock in sockets:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nX")
            started = time.monotonic()
            async with connected(address) as client:
                assert await client.ask() == (200, b"GET /")
            worst_s = max(worst_s, time.monotonic() - started)
        assert worst_s < LONGEST_S / 2


@asynchronous
async def test_who_is_answered_outlasts_who_is_silent():
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(limits=replace(PATIENT, connections=10)))
        client = await stack.enter_async_context(connected(address))
        await client.ask()
        for _ in range(10):
            await crowd(stack, address, 8)
            assert await client.ask() == (200, b"GET /")


@asynchronous
async def test_connections_that_ended_do_not_count():
    limits = replace(PATIENT, connections=3)
    async with serving(limits=limits) as address, connected(address) as client:
        await client.ask()
        for _ in range(10):
            await once(address, get("/"))
        assert await client.ask() == (200, b"GET /")


@asynchronous
async def test_a_crowd_queues_and_is_let_in_a_few_at_a_time():
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(limits=replace(PATIENT, connections=999)))
        for _ in range(300):  # nobody accepts meanwhile: the loop is blocked
            stack.enter_context(socket.create_connection(address, timeout=LONGEST_S))
        before = open_files()
        counts = [0]
        while counts[-1] < 300:
            await asyncio.sleep(0)
            counts.append(len(opened_since(before)))
        assert max(after - before for before, after in pairwise(counts)) < 100


@asynchronous
async def test_the_limit_holds_for_all_listeners_of_a_server_together():
    server = HttpServer(replace(PATIENT, connections=3), lambda: NOON)
    async with contextlib.AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(listening(server)) for _ in range(4)]
        clients = []
        for address in addresses:
            clients.append(await stack.enter_async_context(connected(address)))
            await clients[-1].ask()
        await clients[0].end()
        for client in clients[1:]:
            assert (await client.ask())[0] == 200
