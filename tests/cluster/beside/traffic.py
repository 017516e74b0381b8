"""Clients that never stop: connections that last, and new ones all the time."""

from __future__ import annotations

import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kproxy.core.addresses import Family
from tests.support.net import plan
from tests.support.net.network import Network
from tests.support.net.plan import in_family
from tests.support.net.responders import FAMILIES

PORT = 9000
"""The port that the pods serve."""

# Shorter than the second after which the kernel sends a lost SYN again: a loss has to show. That
# is between kernels; the servers here may be kept from answering by whatever else runs.
_CONNECT_S = 0.9
_ANSWER_S = 60.0
_PAUSE_S = 0.002
_LARGEST = 64
_TURN_S = 0.05


class Traffic:
    """Asks every frontend ("ip:port") from every source over both families, round after round.

    In a round there is one new connection for each and a word on the one that was opened first.
    """

    def __init__(self, network: Network, sources: list[str], frontends: list[str]) -> None:
        self.failed: list[str] = []
        self.rounds = 0
        self.answered_by: set[str] = set()  # since `forget`
        self._network = network
        self._ways = list(itertools.product(sources, frontends, Family))
        self._lasting = [self._open(*way) for way in self._ways]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def forget(self) -> None:
        """Forget who answered, and let all that is under way come to its end."""
        self.pass_rounds(1)
        self.answered_by.clear()

    def pass_rounds(self, number: int) -> None:
        """Wait until so many further rounds began and ended."""
        wanted = self.rounds + number + 1
        while self.rounds < wanted and self._thread.is_alive():
            time.sleep(_PAUSE_S)
        assert self._thread.is_alive(), "the clients are gone"

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for connection in self._lasting:
            connection.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            for way, lasting in zip(self._ways, self._lasting, strict=True):
                self._try("new", way, self._ask_anew)
                self._try("lasting", way, lambda *_, lasting=lasting: _ask(lasting))
            self.rounds += 1
            time.sleep(_PAUSE_S)

    def _try(self, kind, way, ask) -> None:
        try:
            ask(*way)
        except OSError as error:
            source, frontend, family = way
            self.failed.append(f"{kind}: {source} -> {frontend} over {family.value}: {error!r}")

    def _ask_anew(self, *way) -> None:
        with self._open(*way) as connection:
            self.answered_by.add(_ask(connection))

    def _open(self, source: str, frontend: str, family: Family) -> socket.socket:
        address, _, port = frontend.rpartition(":")
        with self._network.namespaces[plan.PLACES[source]].entered():
            made = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
        made.settimeout(_CONNECT_S)
        try:
            made.bind((in_family(source, family), 0))
            made.connect((in_family(address, family), int(port)))
            made.settimeout(_ANSWER_S)
        except OSError:
            made.close()
            raise
        return made


def _ask(connection: socket.socket) -> str:
    connection.sendall(b"?")
    answer = connection.recv(_LARGEST).decode()
    if not answer:
        raise ConnectionResetError("the other end is gone")
    return answer


@contextmanager
def serving(network: Network, *pods: str) -> Iterator[None]:
    """Let pods answer every message with their own IPv4 address while the body runs."""
    selector = selectors.DefaultSelector()
    ended = threading.Event()
    for pod, family in itertools.product(pods, Family):
        with network.namespaces[plan.PLACES[pod]].entered():
            listener = socket.create_server(
                (in_family(pod, family), PORT), family=FAMILIES[family], backlog=1024
            )
        selector.register(listener, selectors.EVENT_READ, (None, pod.encode()))
    thread = threading.Thread(target=_serve, args=(selector, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for key in list(selector.get_map().values()):
            key.fileobj.close()
        selector.close()


def _serve(selector: selectors.BaseSelector, ended: threading.Event) -> None:
    while not ended.is_set():
        for key, _ in selector.select(_TURN_S):
            connection, name = key.data
            if connection is None:
                accepted, _ = key.fileobj.accept()
                selector.register(accepted, selectors.EVENT_READ, (accepted, name))
            elif not _answer(connection, name):
                selector.unregister(connection)
                connection.close()


def _answer(connection: socket.socket, name: bytes) -> bool:
    """Answer a message; say whether there was one."""
    try:
        message = connection.recv(_LARGEST)
    except ConnectionResetError:
        return False
    if message:
        connection.send(name)
    return bool(message)
