"""A server on loopback, and clients that say exactly what they are told to."""

import asyncio
import contextlib
import functools
import socket
import time

from kproxy.run.http.message import Response
from kproxy.run.http.server import HttpServer, Limits
from kproxy.run.http.sockets import Address, bind_one_family
from tests.support.ports import LOOPBACK
from tests.support.waiting import LONGEST_S

NOON = 1_767_268_800.0  # 2026-01-01 12:00:00 UTC
DATE = b"Thu, 01 Jan 2026 12:00:00 GMT"
LONG_S = 1000.0
SMALL_BYTES = 8 << 10
PATIENT = Limits(head_s=LONG_S, idle_s=LONG_S, write_s=LONG_S, linger_s=LONG_S)


class HeldClock(asyncio.SelectorEventLoop):
    """An event loop whose time is what a test says, however long anything takes."""

    now_s = 1000.0

    def time(self):
        return self.now_s


def asynchronous(test):
    """Run a coroutine test; whatever it leaves open is an error."""

    @functools.wraps(test)
    def sync(**fixtures):
        asyncio.run(_bounded(test(**fixtures)))

    return sync


async def _bounded(coroutine):
    async with asyncio.timeout(LONGEST_S):
        await coroutine


def page(request):
    """Answer with what was asked."""
    return Response(
        200, (("Content-Type", "text/plain"),), f"{request.method} {request.path}".encode()
    )


def ok(body, *, close=False):
    """Return the bytes of an answer of `page`."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: %b\r\nContent-Length: %d\r\n%b\r\n"
    )
    return head % (DATE, len(body), b"Connection: close\r\n" if close else b"") + body


def get(path="/", *headers, method="GET"):
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: node", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@contextlib.asynccontextmanager
async def serving(handler=page, limits=PATIENT):
    """Serve `handler`; yield where. By default no deadline will help anybody out."""
    async with listening(HttpServer(limits, lambda: NOON), handler) as address:
        yield address


@contextlib.asynccontextmanager
async def listening(server, handler=page):
    """Give a server one more listener; its connections buffer little in the kernel."""
    bound = bind_one_family(Address(LOOPBACK, 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    address = Address(*bound.getsockname())
    listener = server.listen(bound, handler)
    try:
        yield address
    finally:
        listener.close()


class Client:
    """One connection."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def send(self, data):
        """Send and wait until the kernel took it."""
        self._writer.write(data)
        await self._writer.drain()

    def half_close(self):
        """Say that nothing more will be sent."""
        self._writer.write_eof()

    async def read(self, size):
        """Return exactly `size` bytes."""
        async with asyncio.timeout(LONGEST_S):
            return await self._reader.readexactly(size)

    async def answer(self):
        """Return head and body of the next answer; it has a Content-Length."""
        async with asyncio.timeout(LONGEST_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            return head, await self._reader.readexactly(length)

    async def ask(self, path="/", *headers, method="GET"):
        """Send a request and return status code and body."""
        await self.send(get(path, *headers, method=method))
        head, body = await self.answer()
        return int(head.split()[1]), body

    async def rest(self):
        """Return everything until the server closes; a reset is an error."""
        async with asyncio.timeout(LONGEST_S):
            return await self._reader.read()

    async def end(self):
        """Wait until the server has ended the connection, in whatever way."""
        with contextlib.suppress(ConnectionError):
            await self.rest()

    async def close(self):
        """Close and wait for it."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(address):
    """Connect a client that buffers little in the kernel."""
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    client = Client(*await asyncio.open_connection(sock=sock, limit=SMALL_BYTES))
    try:
        yield client
    finally:
        await client.close()


async def once(address, data):
    """Send `data` over a connection of its own and return all that comes back."""
    async with connected(address) as client:
        await client.send(data)
        client.half_close()
        return await client.rest()


async def until(condition):
    """Wait for something that happens in other tasks."""
    give_up_at = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < give_up_at, "it never happened"
        await asyncio.sleep(0.002)


async def crowd(stack, address, size):
    """Return `size` connected sockets that say nothing."""
    loop = asyncio.get_running_loop()
    sockets = []
    for _ in range(size):
        sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        stack.callback(sock.close)
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sockets.append(sock)
    return sockets
