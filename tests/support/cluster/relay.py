"""The way to the API server, as a bad network: from the loopback of a network namespace to ours.

Connections are handed on byte by byte, so TLS goes through from end to end.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from tests.support.net.resets import reset_on_close
from tests.support.ports import LOOPBACK, keep, listening, port_of
from tests.support.waiting import LONGEST_S

_CHUNK_SIZE_BYTES = 65536
_STEPS_OF_ACCEPTING = 5  # rounds of the loop after which `_begin` knows every accepted connection


class Relay:
    """Forwards TCP from 127.0.0.1 of one namespace to a port of 127.0.0.1 here.

    It is made outside of that namespace; `entered` enters it, as that of
    `tests.support.net.namespace.Namespace` does, and without it the relay listens here. `port`
    says where it listens; 0 takes any. The port stays its own while it refuses.
    """

    def __init__(
        self,
        to_port: int,
        *,
        port: int,
        entered: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        with entered():
            self._place = keep(port)
        self.port = port_of(self._place)
        self.accepted = 0
        self.bytes_from_clients = 0
        self.bytes_to_clients = 0
        self._to_port = to_port
        self._entered = entered
        self._servers: list[asyncio.Server] = []
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.admit()
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """Reset every connection; new ones are taken as before."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Refuse new connections, until `admit`; those that exist go on."""
        self._do(self._stop_listening())

    def admit(self) -> None:
        """Take new connections."""
        with self._entered():
            listener = listening(self.port)
        self._do(self._listen(listener))

    def hang(self) -> None:
        """Take connections and data and hand nothing on, until `flow`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Hand on what was held back and what comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """Stop listening and reset every connection."""
        self._do(self._stop_listening())
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONGEST_S)
        self._loop.close()
        self._place.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _do(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(LONGEST_S)

    async def _listen(self, listener: socket.socket) -> None:
        self._servers.append(await asyncio.start_server(self._begin, sock=listener))

    async def _stop_listening(self) -> None:
        while self._servers:
            server = self._servers.pop()
            # Python 3.11 forgets a connection whose server is closed between accept() and the
            # making of its transport: it would stay open.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            for _ in range(_STEPS_OF_ACCEPTING):
                await asyncio.sleep(0)
            server.close()
            await server.wait_closed()

    async def _cut(self) -> None:
        for end in self._ends:
            _reset(end)
        serving = list(self._serving)
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._ends.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._to_port)
            ends.append(far_writer)
            self._ends.add(far_writer)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._hand_on(reader, far_writer, self._sent))
                directions.create_task(self._hand_on(far_reader, writer, self._received))
        except* OSError:  # nobody listens there, or either end reset the connection
            for end in ends:
                _reset(end)
        finally:
            for end in ends:
                end.close()
                self._ends.discard(end)

    async def _hand_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:
        while data := await reader.read(_CHUNK_SIZE_BYTES):
            await self._flows.wait()
            count(len(data))
            writer.write(data)
            await writer.drain()
        await self._flows.wait()
        writer.write_eof()

    def _sent(self, size_bytes: int) -> None:
        self.bytes_from_clients += size_bytes

    def _received(self, size_bytes: int) -> None:
        self.bytes_to_clients += size_bytes


def _reset(end: asyncio.StreamWriter) -> None:
    """Drop a connection in a way that its other end notices at once, as an error."""
    sock = end.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        reset_on_close(sock)
    end.transport.abort()
