"""One connection of a client: requests in, answers out, bent by whatever is wrong today."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import h11

from tests.support.fake_api.faults import Answer, Cut, Drop, Edit, Fault, Hang, Silence, Trickle
from tests.support.fake_api.requests import Request, understand
from tests.support.fake_api.watching import End, Stream
from tests.support.net.resets import reset_on_close

BUFFERED_BYTES = 2048  # longer bodies are chunked, as Go's server does
PIECE_BYTES = 1 << 20
BOOKMARK_BEFORE_END_S = 2.0

_NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Serve = Callable[[Request], tuple[Answer | Stream, Fault | None]]


class _Over(Exception):
    """This connection is not to be used any more."""


class Connection:
    """Serves one connection. `serve` decides, `opened` and `closed` are told of watches."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        serve: Serve,
        opened: Callable[[Stream], None],
        closed: Callable[[Stream], None],
        version: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._opened = opened
        self._closed = closed
        self._version = version
        self._http = h11.Connection(h11.SERVER)
        self._aborted = False

    async def run(self) -> None:
        """Answer requests until either side has had enough."""
        try:
            while (request := await self._request()) is not None:
                answer, fault = self._serve(request)
                await self._while_connected(self._answer(answer, fault))
                if self._http.our_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError:
            self._writer.write(_NOT_HTTP)
        except (_Over, ConnectionError):
            return
        finally:
            if not self._aborted:
                self._writer.close()

    def abort(self) -> None:
        """Drop the connection. Closing it as well would send a close_notify after all."""
        self._aborted = True
        self._writer.transport.abort()

    async def _request(self) -> Request | None:
        """Return the next request, None if there is none."""
        head: h11.Request | None = None
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers: dict[str, str] = {}
                for name, value in ((n.decode().lower(), v.decode()) for n, v in head.headers):
                    headers[name] = f"{headers[name]}, {value}" if name in headers else value
                return understand(head.method.decode(), head.target.decode(), headers, body)
            else:
                return None

    async def _while_connected(self, answering: Awaitable[None]) -> None:
        """Answer, but stop as soon as nobody listens any more."""
        task = asyncio.ensure_future(answering)
        try:
            while not task.done():
                heard = asyncio.ensure_future(self._reader.read(1 << 16))
                await asyncio.wait({task, heard}, return_when=asyncio.FIRST_COMPLETED)
                if not heard.done():
                    heard.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await heard
                elif data := heard.result():
                    self._http.receive_data(data)
                else:
                    raise _Over
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, _Over, ConnectionError):
                await task

    async def _answer(self, answer: Answer | Stream, fault: Fault | None) -> None:
        match fault:
            case Hang():
                await asyncio.Event().wait()
            case Drop():
                await self._cut(reset=fault.reset)
        if isinstance(answer, Stream):
            await self._stream(answer, fault)
        else:
            await self._reply(answer, fault)

    async def _reply(self, answer: Answer, fault: Fault | None) -> None:
        body = Body(self._writer, fault, self._cut)
        content = body.edited(answer.body)
        headers = [("Content-Type", answer.content_type), *answer.headers]
        if len(content) <= BUFFERED_BYTES:
            headers.append(("Content-Length", str(len(content))))
        await self._head(answer.status, headers)
        for start in range(0, len(content), PIECE_BYTES):
            piece = content[start : start + PIECE_BYTES]
            await body.send(self._http.send(h11.Data(piece)) or b"")
        await body.send(self._http.send(h11.EndOfMessage()) or b"")

    async def _stream(self, stream: Stream, fault: Fault | None) -> None:
        body = Body(self._writer, fault, self._cut)
        self._opened(stream)
        clocks = self._clocks(stream)
        try:
            await self._head(200, [("Content-Type", "application/json")])
            while not isinstance(said := await stream.queue.get(), End):
                await body.send(self._http.send(h11.Data(body.edited(said))) or b"")
            if said is not End.CLEAN:
                await self._cut(reset=said is End.RESET)
            await body.send(self._http.send(h11.EndOfMessage()) or b"")
        finally:
            for clock in clocks:
                clock.cancel()
            self._closed(stream)

    def _clocks(self, stream: Stream) -> list[asyncio.TimerHandle]:
        timeout_s = stream.options.timeout_s
        if not timeout_s:
            return []
        loop = asyncio.get_running_loop()
        clocks = [loop.call_later(timeout_s, stream.finish, End.CLEAN)]
        if timeout_s > BOOKMARK_BEFORE_END_S:
            wait_s = timeout_s - BOOKMARK_BEFORE_END_S
            clocks.append(loop.call_later(wait_s, lambda: stream.bookmark(self._version())))
        return clocks

    async def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        event = h11.Response(status_code=status, headers=headers)
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def _cut(self, *, reset: bool) -> None:
        """End the connection without a word: no last chunk, no TLS close_notify."""
        await self._writer.drain()
        if reset:
            connection = self._writer.get_extra_info("socket")
            reset_on_close(connection)
        self.abort()
        raise _Over


class Body:
    """The bytes of one body on their way out."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        fault: Fault | None,
        cut: Callable[..., Awaitable[None]],
    ) -> None:
        self._writer = writer
        self._fault = fault
        self._cut = cut
        self._left = fault.after if isinstance(fault, Cut | Silence) else 0

    def edited(self, piece: bytes) -> bytes:
        """Return what is sent instead of a whole answer, or of the next lines of a watch."""
        return self._fault.change(piece) if isinstance(self._fault, Edit) else piece

    async def send(self, data: bytes) -> None:
        """Send bytes as they go over the wire."""
        match self._fault:
            case Cut(_, reset):
                await self._send_what_is_left(data)
                if not self._left:
                    await self._cut(reset=reset)
            case Silence():
                await self._send_what_is_left(data)
                if not self._left:
                    await asyncio.Event().wait()
            case Trickle(pause_s):
                for i in range(len(data)):
                    self._writer.write(data[i : i + 1])
                    await self._writer.drain()
                    await asyncio.sleep(pause_s)
            case _:
                self._writer.write(data)
                await self._writer.drain()

    async def _send_what_is_left(self, data: bytes) -> None:
        self._writer.write(data[: self._left])
        await self._writer.drain()
        self._left = max(0, self._left - len(data))
