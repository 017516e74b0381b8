"""The pods' servers and everybody's requests, in a process of their own.

One event loop does it all; each socket is made inside the namespace of its machine and stays there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

from examples.demo.plan import Caller, Expected, Pod
from tests.support.net.namespace import Namespace

_REPORT_EVERY_S = 0.05
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # nothing lingers: ports are free for the next request


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: who asked (by the number), when by the monotonic clock, what came of it.

    `pod` answered and saw the request come from `seen`; both are empty without an answer. `good`:
    this is what had to happen.
    """

    caller: int
    at_s: float
    took_s: float
    outcome: Expected
    good: bool
    pod: str
    seen: str


@dataclass(frozen=True, slots=True)
class Start:
    """Tell the traffic process to let a pod answer."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the traffic process that a pod has ended: it refuses from now on."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Ask:
    """Tell the traffic process to let all callers begin."""


@dataclass(frozen=True, slots=True)
class End:
    """Tell the traffic process to report the rest and return."""


Order = Start | Stop | Ask | End


@dataclass(frozen=True, slots=True)
class Plan:
    """Who asks, and how long each of them waits for an answer."""

    callers: Sequence[Caller]
    answer_within_s: float


def run(machines: dict[str, Namespace], plan: Plan, boss: Connection) -> None:
    """Follow the orders that come by `boss`, and report lists of Samples to it."""
    # The terminal's Ctrl-C reaches the whole group; the parent decides what follows.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Traffic(machines, plan, boss).serve())


class _Traffic:
    def __init__(self, machines: dict[str, Namespace], plan: Plan, boss: Connection) -> None:
        self._machines = machines
        self._plan = plan
        self._boss = boss
        self._samples: list[Sample] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers: dict[str, list[asyncio.Server | asyncio.DatagramTransport]] = {}
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Run until told to end, or until the parent is gone."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._boss.fileno(), self._take_orders)
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _REPORT_EVERY_S)
            self._report()
        for task in self._tasks:
            task.cancel()

    def _report(self) -> None:
        with contextlib.suppress(ConnectionError):  # the parent is gone
            self._boss.send(self._samples)
        self._samples = []

    def _take_orders(self) -> None:
        try:
            order: Order = self._boss.recv()
        except (EOFError, ConnectionResetError):
            order = End()  # the parent is gone
        match order:
            case Start(pod):
                self._begin(self._start(pod))
            case Stop(pod):
                for each in self._closers.pop(pod.name, []):
                    each.close()
            case Ask():
                for index, caller in enumerate(self._plan.callers):
                    self._begin(self._keep_asking(index, caller))
            case End():
                self._ended.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, pod: Pod) -> None:
        closers = self._closers.setdefault(pod.name, [])
        for address in pod.addresses:
            for protocol, port in pod.ports:
                sock = self._socket(pod.name, address, protocol)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
                closers.append(await _serve(sock, pod.name, protocol))

    def _socket(self, machine: str, address: str, protocol: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
        with self._machines[machine].entered():
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    async def _keep_asking(self, index: int, caller: Caller) -> None:
        """Ask at the caller's rate, by chance as customers do, and waiting for no answer."""
        chance = random.Random(index)
        due_s = time.monotonic()
        while True:
            due_s += chance.expovariate(caller.rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self._begin(self._ask(index, caller))

    async def _ask(self, index: int, caller: Caller) -> None:
        at_s = time.monotonic()
        pod = seen = ""
        try:
            with self._socket(caller.machine, caller.address, caller.protocol) as sock:
                at_s = time.monotonic()
                async with asyncio.timeout(self._plan.answer_within_s):
                    pod, seen = await _exchange(sock, caller)
            outcome = Expected.ANSWER
        except ConnectionRefusedError:
            outcome = Expected.REFUSAL
        except (TimeoutError, OSError):
            outcome = Expected.SILENCE
        took_s = time.monotonic() - at_s
        good = outcome is caller.expected and caller.seen_as in ("", seen)
        self._samples.append(Sample(index, at_s, took_s, outcome, good, pod, seen))


async def _exchange(sock: socket.socket, caller: Caller) -> tuple[str, str]:
    """Send a request; return which pod answered and whom it saw. Raises OSError."""
    loop = asyncio.get_running_loop()
    if caller.source:
        sock.bind((caller.source, 0))
    if caller.protocol == "TCP":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    await loop.sock_connect(sock, (caller.address, caller.port))
    await loop.sock_sendall(sock, _REQUEST)
    answer = b""
    while not answer.endswith(b"\n"):
        more = await loop.sock_recv(sock, 4096)
        if not more:
            raise ConnectionResetError("the answer ended early")
        answer += more
    pod, seen = answer.decode().split("\r\n\r\n")[-1].split()
    return pod, seen


async def _serve(
    sock: socket.socket, pod: str, protocol: str
) -> asyncio.Server | asyncio.DatagramTransport:
    """Answer every request with the pod's name and the address that it came from."""
    if protocol == "UDP":
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(pod), sock=sock)
        return transport

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(pod, writer.get_extra_info("peername")[0]))
            await writer.drain()
            await reader.read()  # the client resets; ending first would leave a TIME_WAIT here
        writer.close()

    return await asyncio.start_server(answer, sock=sock)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, pod: str) -> None:
        self._pod = pod

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(_answer(self._pod, addr[0]), addr)


def _answer(pod: str, client: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\n\r\n{pod} {client}\n".encode()
