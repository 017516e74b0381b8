"""Endpoints that tell their address, and clients that ask Services for it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bench.cluster import ENDPOINT_PORT, SERVICE_PORT
from bench.stage import Stage
from tests.support.net.resets import reset_on_close
from tests.support.waiting import SLOWER

_LEAST_S = 0.001  # between two calls, of which each costs a tenth of that
_SHARE = 0.01  # of the time that one is waited for: it is called again so late at most
_PATIENCE_S = 1.0 * SLOWER


@dataclass(frozen=True, slots=True)
class Answer:
    """A clusterIP that was answered as expected, and when, by the monotonic clock."""

    cluster_ip: str
    heard_s: float


@dataclass(frozen=True, slots=True)
class _Call:
    client: socket.socket
    cluster_ip: str
    begun_s: float


class Calling:
    """Calls clusterIPs until the right endpoint answers. A context manager.

    Those that are not answered yet are called in turn, whatever became of the calls before: an
    unanswered one hides nothing that comes after it. There is a call each millisecond while that
    matters: how long it took until one is reached is told to a millisecond, or to a hundredth if
    that is more; among 75 that are waited for at once, to 75 ms.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._expected: dict[str, str | None] = {}
        self._turns = deque[str]()
        self._calls = deque[_Call]()
        self._selector = selectors.DefaultSelector()
        self._due_s = self._expected_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for call in self._calls:
            call.client.close()
        self._selector.close()

    @property
    def waits(self) -> bool:
        """Whether somebody has not been answered yet."""
        return bool(self._expected)

    def expect(self, cluster_ip: str, by: str | None = None) -> None:
        """Begin to call a clusterIP; `by` is the endpoint that shall answer if not any."""
        self._expected[cluster_ip] = by
        self._turns.appendleft(cluster_ip)
        self._expected_s = time.monotonic()

    def answers(self, *, until_s: float) -> list[Answer]:
        """Wait for the next answers that were expected; none if there are none until then."""
        found: list[Answer] = []
        with self._stage.client.entered():
            while not found and (now_s := time.monotonic()) < until_s:
                if self._turns and self._due_s <= now_s:
                    self._call(now_s)
                wakes_s = min(self._due_s, until_s) if self._turns else until_s
                found += self._heard(wakes_s - now_s)
        return found

    def _call(self, now_s: float) -> None:
        cluster_ip = self._turns[0]
        self._turns.rotate(-1)
        again_s = _SHARE * (now_s - self._expected_s)
        self._due_s = now_s + max(_LEAST_S, again_s / len(self._turns))
        while self._calls and self._calls[0].begun_s < now_s - _PATIENCE_S:
            self._end(self._calls[0])
        client = socket.socket()
        client.setblocking(False)
        reset_on_close(client)
        call = _Call(client, cluster_ip, now_s)
        self._calls.append(call)
        self._selector.register(client, selectors.EVENT_READ, call)
        client.connect_ex((cluster_ip, SERVICE_PORT))  # what becomes of it is heard

    def _heard(self, within_s: float) -> Iterator[Answer]:
        for key, _ in self._selector.select(max(0.0, within_s)):
            call: _Call = key.data
            answered = ""
            with contextlib.suppress(OSError):
                answered = call.client.recv(64).decode()
            self._end(call)
            expected = self._expected.get(call.cluster_ip, "")
            if answered and expected in (None, answered):
                del self._expected[call.cluster_ip]
                self._turns.remove(call.cluster_ip)
                yield Answer(call.cluster_ip, time.monotonic())

    def _end(self, call: _Call) -> None:
        self._selector.unregister(call.client)
        self._calls.remove(call)
        call.client.close()


class _TellAddress(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client resets: no TIME_WAIT stays here
            self.request.sendall(self.request.getsockname()[0].encode())


class _Server(socketserver.TCPServer):
    request_queue_size = 1024
    allow_reuse_address = True


@contextlib.contextmanager
def answering(stage: Stage) -> Iterator[None]:
    """Let every endpoint answer with its own address."""
    with stage.far.entered():
        server = _Server(("0.0.0.0", ENDPOINT_PORT), _TellAddress)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
