"""Connections and flows that last: each can be asked at any time who is at its other end."""

from __future__ import annotations

import functools
import selectors
import socket
from weakref import WeakSet

from kproxy.core.addresses import Family, family_of
from kproxy.core.objects import Protocol
from tests.support.net.ancillary import drained
from tests.support.net.loop import Loop
from tests.support.net.network import Network
from tests.support.net.plan import in_family
from tests.support.net.resets import reset_on_close
from tests.support.net.responders import FAMILIES
from tests.support.waiting import SLOWER

PORT = 7000
"""The port that pods converse on."""

_TURNS = 1000  # of all conversations together
_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_LARGEST = 64
_PATIENCE_S = 10.0 * SLOWER  # TCP sends a lost SYN again after 1 s, 3 s and 7 s


class Conversations:
    """Servers on `PORT` that answer every message with their own address, and their clients."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._loop = Loop()
        self._clients: WeakSet[socket.socket] = WeakSet()
        self._served: set[socket.socket] = set()  # connections of TCP, at the servers' ends

    def serve(self, *addresses: str) -> None:
        """Let these machines converse, by TCP and UDP; addresses are given as IPv4."""
        for address in addresses:
            for family in Family:
                self._serve(in_family(address, family), name=address.encode())

    def open(
        self,
        source: str,
        to: str,
        protocol: Protocol,
        family: Family,
        *,
        source_port: int = 0,
        connected: bool = True,
    ) -> Conversation:
        """Begin to talk from one machine to a frontend ("ip:port").

        A socket of UDP that is not `connected` names the frontend each time, and hears it alone;
        as those of resolvers, it leaves it to the kernel from which address and port it sends.
        """
        address, _, port = to.rpartition(":")
        client = self._socket(in_family(source, family), _KINDS[protocol])
        self._clients.add(client)
        frontend = (in_family(address, family), int(port))
        if protocol is Protocol.UDP and not source_port:
            # the kernel never gives two one port then: ipvs would mix up their answers
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            if not connected:
                return Conversation(self._loop, client, frontend)
        client.bind((in_family(source, family), source_port))
        client.connect_ex(frontend)
        return Conversation(self._loop, client)

    def hang_up(self) -> None:
        """Reset all that were opened, at both ends: nothing is sent any more, not even again."""
        for each in (*self._clients, *self._served):
            if each.fileno() >= 0:
                reset_on_close(each)
                self._loop.close(each)
        self._served.clear()

    def close(self) -> None:
        """End all of them."""
        self._loop.shut_down()

    def _serve(self, address: str, *, name: bytes) -> None:
        listener = self._socket(address, socket.SOCK_STREAM)
        listener.bind((address, PORT))
        listener.listen()
        self._loop.watch(listener, functools.partial(self._accept, listener, name))
        datagrams = self._socket(address, socket.SOCK_DGRAM)
        datagrams.bind((address, PORT))
        self._loop.watch(datagrams, functools.partial(_answer_datagrams, datagrams, name))

    def _accept(self, listener: socket.socket, name: bytes) -> None:
        for connection, _ in drained(listener.accept):
            connection.setblocking(False)
            self._served.add(connection)
            answer = functools.partial(self._answer_stream, connection, name)
            self._loop.watch(connection, answer)

    def _answer_stream(self, connection: socket.socket, name: bytes) -> None:
        try:
            for message in drained(lambda: connection.recv(_LARGEST)):
                if not message:
                    self._hung_up(connection)
                    return
                connection.send(name)
        except ConnectionError:  # the kernel forgot the connection before both ends did
            self._hung_up(connection)

    def _hung_up(self, connection: socket.socket) -> None:
        self._loop.close(connection)
        self._served.discard(connection)

    def _socket(self, address: str, kind: socket.SocketKind) -> socket.socket:
        with self._network.machine(address).entered():
            made = socket.socket(FAMILIES[family_of(address)], kind | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made


class Conversation:
    """A client's end; it speaks only when it is asked."""

    def __init__(
        self, loop: Loop, client: socket.socket, frontend: tuple[str, int] | None = None
    ) -> None:
        self._loop = loop
        self._client = client
        self._frontend = frontend  # None: the socket is connected to it
        self.source_port: int = client.getsockname()[1]

    def partner(self, *, quiet_s: float = _PATIENCE_S) -> str:
        """Say something and return who answers: the pod's IPv4 address, or why nobody does.

        Nobody does if nothing at all happens for `quiet_s`. A machine that keeps us waiting is not
        quiet: what came meanwhile is there when we get to look.
        """
        answers: list[str] = []
        self._when_writable(lambda: self._say(answers))
        for _ in range(_TURNS):
            if answers or not self._loop.turn(quiet_s):
                break
        return answers[0] if answers else "nobody"

    @property
    def is_unconnected(self) -> bool:
        """Whether each datagram names the frontend."""
        return self._frontend is not None

    def end(self) -> None:
        """Close the client's end."""
        self._loop.close(self._client)

    def _when_writable(self, then) -> None:
        self._loop.watch(self._client, then, selectors.EVENT_WRITE)

    def _say(self, answers: list[str]) -> None:
        self._loop.watch(self._client, lambda: self._hear(answers))
        try:
            self._speak(b"who is there?")
        except OSError as error:
            answers.append(str(error))

    def _speak(self, what: bytes) -> None:
        if self._frontend is None:
            self._client.send(what)
        else:
            self._client.sendto(what, self._frontend)

    def _hear(self, answers: list[str]) -> None:
        try:
            said, by = self._client.recvfrom(_LARGEST)
        except BlockingIOError:
            return
        except OSError as error:
            answers.append(str(error))
            return
        if self._frontend in (None, by[:2] if by else None):
            answers.append(said.decode() or "the end")
        else:
            answers.append(f"not the frontend, but {by}")


def _answer_datagrams(server: socket.socket, name: bytes) -> None:
    for _, source in drained(lambda: server.recvfrom(_LARGEST)):
        server.sendto(name, source)
