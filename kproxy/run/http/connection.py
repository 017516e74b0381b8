"""One HTTP/1.1 connection that costs little, whatever the other side does.

h11 reads and frames the messages; this adds what the network needs: a deadline for every state,
bounds on what is kept, and an end that does not cut off the last answer.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import h11

from kproxy.run.http.message import Handler, Response, read_target, text_answer

log = logging.getLogger(__name__)

_CLOSE = ("Connection", "close")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much patience and memory a client gets.

    - `connections`: so many are open at once; the one that was idle longest makes room.
    - `head_s`: for a request to arrive, `idle_s`: for the next one to begin.
    - `write_s`: for an answer to be taken, `linger_s`: for the client to close after the last one.
    - `pause_s`: until the kernel is asked again that had no descriptor or memory for one more.
    - `head_bytes` bounds a request's line and headers, `body_bytes` a body, which nobody reads.
    """

    connections: int = 128
    head_s: float = 10.0
    idle_s: float = 180.0
    write_s: float = 30.0
    linger_s: float = 1.0
    pause_s: float = 1.0
    head_bytes: int = 16 << 10
    body_bytes: int = 4 << 10


class Door(Protocol):
    """Where connections come in."""

    handler: Handler
    limits: Limits
    wall_clock: Callable[[], float]

    def joined(self, connection: Connection) -> None:
        """Learn of a new connection."""

    def served(self, connection: Connection) -> None:
        """Learn that it just had an answer."""

    def left(self, connection: Connection) -> None:
        """Learn that it is gone."""


class Connection(asyncio.Protocol):
    """Answers requests one after the other.

    It gives the event loop back after each answer, so that a client which sends thousands of
    requests at once gets its turn like everybody else. It reads nothing while a request or an
    answer waits; so data and the end of data only come when everything before was dealt with.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._limits = door.limits
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, door.limits.head_bytes)
        self._deadline: asyncio.TimerHandle | None = None
        self._head: h11.Request | None = None
        self._body_bytes = 0
        self._idle = False  # answered, and nothing of the next request is here
        self._blocked = False  # an answer is not sent yet
        self._ending = False  # the last answer was given

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. A client that never says anything has `head_s` too."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # so that every wait of a write is noticed
        self._within(self._limits.head_s)
        self._door.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._ending = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._door.left(self)

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the last answer was given."""
        if self._ending:
            return
        if self._idle:
            self._idle = False
            self._within(self._limits.head_s)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Refuse a request that stops half-way; asyncio closes when all that was written is out."""
        self._http.receive_data(b"")
        self._advance()

    def pause_writing(self) -> None:
        """Wait, but not for ever, until the client takes its answer."""
        self._blocked = True
        self._transport.pause_reading()
        self._within(self._limits.write_s)

    def resume_writing(self) -> None:
        """Go on: the answer is out."""
        self._blocked = False
        if self._ending:
            self._within(self._limits.linger_s)
        else:
            self._await_next()

    def abort(self) -> None:
        """End it now, without a word."""
        self._transport.abort()

    def _within(self, seconds: float) -> None:
        """Replace the deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self._transport.abort)

    def _advance(self) -> None:
        """Read on until there is something to answer, or nothing left to read."""
        if self._ending:
            return
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)

    def _read(self) -> None:
        while True:
            event = self._http.next_event()
            match event:
                case h11.Request():
                    self._head = event
                    self._body_bytes = 0
                    if not event.http_version.startswith(b"1."):
                        return self._refuse(http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
                    if _size(event) > self._limits.head_bytes:  # it came in one piece
                        return self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                    if self._http.they_are_waiting_for_100_continue:
                        return self._answer(event)  # we do not want the body
                case h11.Data():
                    self._body_bytes += len(event.data)
                    if self._body_bytes > self._limits.body_bytes:
                        return self._refuse(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                case h11.EndOfMessage() if self._head is not None:
                    return self._answer(self._head)
                case _:  # more has to come first, or there will be no more
                    return self._transport.resume_reading()

    def _answer(self, head: h11.Request) -> None:
        """Answer the request, then go on in a later turn of the loop if there is more."""
        if head.method == b"CONNECT":  # success would turn the connection into a tunnel
            return self._refuse(http.HTTPStatus.METHOD_NOT_ALLOWED)
        more = (_CLOSE,) if self._http.their_state is h11.SEND_BODY else ()
        self._send(self._handle(head), *more)
        self._door.served(self)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return self._end()
        self._http.start_next_cycle()
        self._head = None
        if not self._blocked:
            self._await_next()

    def _handle(self, head: h11.Request) -> Response:
        accept = next((value for name, value in head.headers if name == b"accept"), b"")
        request = read_target(
            head.method.decode("ascii"), head.target.decode("ascii"), accept.decode("latin-1")
        )
        try:
            return self._door.handler(request)
        except Exception:
            log.exception("%s %s cannot be answered: a bug", request.method, request.path)
            return text_answer("500 Internal Server Error", http.HTTPStatus.INTERNAL_SERVER_ERROR)

    def _await_next(self) -> None:
        """Expect another request; what of it is here already is read in the next turn."""
        received, _ = self._http.trailing_data
        if received:
            self._transport.pause_reading()
            self._within(self._limits.head_s)
            self._loop.call_soon(self._advance)
        else:
            self._idle = True
            self._within(self._limits.idle_s)
            self._transport.resume_reading()

    def _refuse(self, status: int) -> None:
        """Say what is wrong and end: where the next request would begin is not known."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = f"{status} {http.HTTPStatus(status).phrase}"
            self._send(text_answer(text, status), _CLOSE)
        self._end()

    def _send(self, answer: Response, *more_headers: tuple[str, str]) -> None:
        headers = [
            *answer.headers,
            ("Date", email.utils.formatdate(self._door.wall_clock(), usegmt=True)),
            ("Content-Length", str(len(answer.body))),
            *more_headers,
        ]
        reason = http.HTTPStatus(answer.status).phrase
        events: list[h11.Event] = [
            h11.Response(status_code=answer.status, headers=headers, reason=reason)
        ]
        if self._head is None or self._head.method != b"HEAD":
            events.append(h11.Data(data=answer.body))
        events.append(h11.EndOfMessage())
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    def _end(self) -> None:
        """Close so that the last answer arrives.

        What still comes has to be read and thrown away for a moment: to close with unread data
        makes the kernel send a reset, and that takes away an answer which is on its way.
        """
        self._ending = True
        self._transport.write_eof()
        self._transport.resume_reading()
        if not self._blocked:
            self._within(self._limits.linger_s)


def _size(head: h11.Request) -> int:
    return len(head.target) + sum(len(name) + len(value) for name, value in head.headers)
