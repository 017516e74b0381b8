"""Sockets that speak to frontends, and servers that answer only when they are told to."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from backends.kernel.netlink import AF
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePort
from tests.support.ebpf.socket_hooks import HookedFamily, HookedNetwork
from tests.support.tables import pod, service_port, table, vip
from tests.support.waiting import SLOWER

LONGEST_S = 10 * SLOWER
SERVERS = (11, 12, 13)  # by their pods' numbers

_FILES = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}

Servers = Mapping[tuple[Family, int], socket.socket]


@dataclass(frozen=True)
class Wire:
    """How a client's sockets speak: `mapped` is IPv4 by sockets of IPv6."""

    family: Family
    mapped: bool = False

    @property
    def domain(self) -> socket.AddressFamily:
        """The family of the socket."""
        v6 = self.mapped or self.family is Family.IPV6
        return socket.AF_INET6 if v6 else socket.AF_INET

    def at(self, address: str, port: int) -> tuple[str, int]:
        """Return an address and a port as such a socket has them."""
        return (f"::ffff:{address}" if self.mapped else address), port

    def vip(self, number: int) -> tuple[str, int]:
        """Return the clusterIP with a number."""
        return self.at(vip(self.family, number), 80)

    def pod(self, number: int) -> tuple[str, int]:
        """Return the endpoint at a pod."""
        return self.at(pod(self.family, number), 8080)


WIRES = [
    pytest.param(Wire(Family.IPV4), id="IPv4"),
    pytest.param(Wire(Family.IPV4, mapped=True), id="mapped"),
    pytest.param(Wire(Family.IPV6), id="IPv6"),
]


def udp(wire: Wire) -> socket.socket:
    """Return a datagram socket."""
    return _socket(wire, socket.SOCK_DGRAM)


def tcp(wire: Wire) -> socket.socket:
    """Return a stream socket."""
    return _socket(wire, socket.SOCK_STREAM)


@contextlib.contextmanager
def hooked_with_known_pods(cache) -> Iterator[HookedNetwork]:
    """Return a network whose pods all are known to the hooks."""
    network = HookedNetwork(cache)
    try:
        for family in Family:
            made = table(family, service_port(family, 1, [12]))
            network.families[family].program(made)
            network.tell_pods(family, made.rules.local_pods)
            pods = network.pods(family)
            network.know_pods(family, pods, vip(family, 1))
            pods.close()
        yield network
    finally:
        network.close()


@contextlib.contextmanager
def serving(hooked: HookedNetwork) -> Iterator[Servers]:
    """Bind a UDP socket at each pod."""
    with contextlib.ExitStack() as stack:
        made = {}
        for family in Family:
            for number in SERVERS:
                with hooked.network.namespaces[f"pod{number - 10}"].entered():
                    server = stack.enter_context(udp(Wire(family)))
                    server.bind((pod(family, number), 8080))
                made[family, number] = server
        yield made


def program(hooks: HookedFamily, *service_ports: ServicePort) -> None:
    """Have the hooks know these service ports alone."""
    hooks.program(table(hooks.family, *service_ports))


def udp_service(hooks: HookedFamily, number: int, pods: Iterable[int], **more) -> ServicePort:
    """Return a service port of UDP."""
    return service_port(hooks.family, number, pods, protocol=Protocol.UDP, **more)


def peer_of(caller: socket.socket, family: Family) -> tuple[str, int]:
    """Return the peer as the kernel has it, past the hook that hides it."""
    name = _FILES[caller.type] + ("6" if caller.family == socket.AF_INET6 else "")
    own_port = f":{caller.getsockname()[1]:04X}"
    with open(f"/proc/thread-self/net/{name}") as sockets:
        fields = [line.split() for line in sockets]
    (peer,) = {remote for _, local, remote, *_ in fields if local.endswith(own_port)}
    address, _, port = peer.partition(":")
    raw = bytes.fromhex(address)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(AF[family], words[-family.bits // 8 :]), int(port, 16)


def drain(servers: Servers) -> None:
    """Let servers forget what they heard."""
    for server in servers.values():
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.recv(100)
        server.settimeout(LONGEST_S)


def answer(server: socket.socket) -> bytes:
    """Answer the next datagram; return its content."""
    content, client = server.recvfrom(100)
    server.sendto(b"re: " + content, client)
    return content


def answering(servers: Servers, family: Family) -> int:
    """Answer the next datagram, whichever server it is at; return the server's number."""
    listening = {servers[family, number]: number for number in SERVERS}
    readable, _, _ = select.select(listening, [], [], LONGEST_S)
    (server,) = readable
    answer(server)
    return listening[server]


def _socket(wire: Wire, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(wire.domain, kind)
    made.settimeout(LONGEST_S)
    return made
