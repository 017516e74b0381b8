"""What sockets see of a translation by hooks: the frontends that they asked, and nobody else."""

import contextlib
import ctypes
import socket

import pytest

from kproxy.core.objects import Protocol
from tests.support.ebpf.talking import (
    LONGEST_S,
    SERVERS,
    Wire,
    answer,
    answering,
    program,
    tcp,
    udp,
    udp_service,
)
from tests.support.tables import pod, service_port, vip

UDP, TCP = Protocol.UDP, Protocol.TCP
_SLOTS = 4

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("client", ["node", "pod1"])
def test_a_connected_socket_names_its_frontend_as_the_peer(hooked, hooks, wire, client):
    program(hooks, service_port(wire.family, 1, [12]))
    with hooked.network.namespaces["pod2"].entered(), tcp(Wire(wire.family)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((pod(wire.family, 12), 8080))
        listener.listen()
        listener.settimeout(LONGEST_S)
        with hooked.client(client), tcp(wire) as caller:
            caller.connect(wire.vip(1))
            assert caller.getpeername()[:2] == wire.vip(1)
            with contextlib.closing(listener.accept()[0]):
                pass  # one side closes
            assert caller.recv(1) == b""
            assert caller.getpeername()[:2] == wire.vip(1)


@pytest.mark.parametrize("client", ["node", "pod1"])
def test_a_connected_udp_socket_hears_its_frontend(hooked, hooks, servers, wire, client):
    program(hooks, udp_service(hooks, 1, [12]))
    with hooked.client(client), udp(wire) as caller:
        caller.connect(wire.vip(1))
        caller.send(b"question")
        answer(servers[wire.family, 12])
        content, sender = caller.recvfrom(100)
        assert (content, sender[:2]) == (b"re: question", wire.vip(1))
        assert caller.getpeername()[:2] == wire.vip(1)


@pytest.mark.parametrize(("kind", "held"), [(tcp, "tcp_sockets"), (udp, "udp_sockets")])
def test_a_socket_is_forgotten_with_its_last_descriptor(hooked, hooks, servers, wire, kind, held):
    protocol = TCP if kind is tcp else UDP
    program(hooks, service_port(wire.family, 1, [12], protocol=protocol))
    known = hooks.maps[held]
    with hooked.client("pod1"), kind(wire) as caller, contextlib.suppress(ConnectionRefusedError):
        caller.connect(wire.vip(1))
    assert not list(known.items())
    with hooked.client("pod1"), kind(wire) as caller:
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.connect(wire.vip(1))
        with caller.dup():
            caller.close()
            assert len(list(known.items())) == 1
        assert not list(known.items())


def test_connected_anew_to_the_endpoint_a_socket_hears_the_endpoint(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.connect(wire.vip(1))
        caller.connect(wire.pod(12))
        caller.send(b"question")
        answer(servers[wire.family, 12])
        assert caller.recvfrom(100)[1][:2] == wire.pod(12)
        assert caller.getpeername()[:2] == wire.pod(12)


def test_connected_to_the_endpoint_after_datagrams_a_socket_hears_the_endpoint(
    hooked, hooks, servers, wire
):
    program(hooks, udp_service(hooks, 1, [12]))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.sendto(b"by name", wire.vip(1))
        answer(servers[wire.family, 12])
        caller.recvfrom(100)
        caller.connect(wire.pod(12))
        caller.send(b"straight")
        answer(servers[wire.family, 12])
        assert caller.recvfrom(100)[1][:2] == wire.pod(12)


def test_a_disconnected_socket_hears_the_endpoint_as_itself(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.bind(wire.at(pod(wire.family, 11), 40001))  # a port of its own choice would go
        caller.connect(wire.vip(1))
        disconnect(caller)
        servers[wire.family, 12].sendto(b"news", (pod(wire.family, 11), 40001))
        assert caller.recvfrom(100)[1][:2] == wire.pod(12)


@pytest.mark.parametrize("client", ["node", "pod1"])
def test_an_unconnected_socket_keeps_its_endpoint_and_hears_the_frontend(
    hooked, hooks, servers, wire, client
):
    program(hooks, udp_service(hooks, 1, [11, 12, 13]))
    with hooked.client(client), udp(wire) as caller:
        heard = set()
        for _ in range(30):
            caller.sendto(b"question", wire.vip(1))
            heard.add(answering(servers, wire.family))
            assert caller.recvfrom(100)[1][:2] == wire.vip(1)
    assert len(heard) == 1


def test_sockets_are_spread_over_the_endpoints(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [11, 12, 13]))
    heard = []
    with hooked.client("node"):
        for _ in range(150):
            with udp(wire) as caller:
                caller.sendto(b"question", wire.vip(1))
                heard.append(answering(servers, wire.family))
                assert caller.recvfrom(100)[1][:2] == wire.vip(1)
    assert min(map(heard.count, SERVERS)) >= 10  # of 50 each: beyond six sigma


def test_an_endpoint_that_stays_is_kept_and_one_that_leaves_is_not(hooked, hooks, servers, wire):
    with hooked.client("pod1"), udp(wire) as caller:
        program(hooks, udp_service(hooks, 1, [13]))
        caller.sendto(b"question", wire.vip(1))
        assert answering(servers, wire.family) == 13
        caller.recvfrom(100)
        program(hooks, udp_service(hooks, 1, [11, 12, 13]))
        for _ in range(20):
            caller.sendto(b"question", wire.vip(1))
            assert answering(servers, wire.family) == 13
            assert caller.recvfrom(100)[1][:2] == wire.vip(1)
        program(hooks, udp_service(hooks, 1, [12]))
        caller.sendto(b"question", wire.vip(1))
        assert answering(servers, wire.family) == 12
        assert caller.recvfrom(100)[1][:2] == wire.vip(1)


def test_of_two_frontends_with_one_endpoint_the_second_is_left_to_tc(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]), udp_service(hooks, 2, [12]))
    before = hooks.reasons["LEFT_SHARED_ENDPOINT"]
    with hooked.client("pod1"), udp(wire) as caller:
        for _ in range(2):
            caller.sendto(b"second", wire.vip(2))
            caller.sendto(b"first", wire.vip(1))
            assert answer(servers[wire.family, 12]) == b"second"
            assert caller.recvfrom(100)[1][:2] == wire.vip(2)
    assert hooks.reasons["LEFT_SHARED_ENDPOINT"] == before + 2
    assert_quiet(servers)


def test_two_frontends_with_endpoints_of_their_own_are_told_apart(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]), udp_service(hooks, 2, [13]))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.sendto(b"first", wire.vip(1))
        caller.sendto(b"second", wire.vip(2))
        answer(servers[wire.family, 13])
        assert caller.recvfrom(100)[1][:2] == wire.vip(2)
        answer(servers[wire.family, 12])
        assert caller.recvfrom(100)[1][:2] == wire.vip(1)


def test_an_endpoint_called_straight_answers_as_itself(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.sendto(b"by name", wire.vip(1))
        answer(servers[wire.family, 12])
        assert caller.recvfrom(100)[1][:2] == wire.vip(1)
        caller.sendto(b"straight", wire.pod(12))
        answer(servers[wire.family, 12])
        assert caller.recvfrom(100)[1][:2] == wire.pod(12)


def test_more_frontends_than_a_socket_remembers_are_left_to_tc(hooked, hooks, wire):
    numbers = range(1, 12)
    program(hooks, *(udp_service(hooks, number, [20 + number]) for number in numbers))
    before = hooks.reasons["LEFT_SOCKET_FULL"]
    with hooked.client("pod1"), udp(wire) as caller:
        for number in numbers:
            caller.sendto(b"question", wire.vip(number))
    assert hooks.reasons["LEFT_SOCKET_FULL"] == before + len(numbers) - _SLOTS


@pytest.mark.parametrize("kind", [tcp, udp])
def test_a_frontend_without_endpoints_refuses_in_the_call(hooked, hooks, wire, kind):
    protocol = TCP if kind is tcp else UDP
    program(hooks, service_port(wire.family, 1, [], protocol=protocol))
    with hooked.client("pod1"), kind(wire) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(wire.vip(1))


def test_a_datagram_is_never_refused_by_a_hook(hooked, hooks, wire):
    program(hooks, udp_service(hooks, 1, []))
    with hooked.client("pod1"), udp(wire) as caller:
        caller.sendto(b"question", wire.vip(1))
        caller.sendto(b"question", wire.at(vip(wire.family, 1), 81))


def disconnect(caller):
    """Connect to no family: the socket has no peer then."""
    nobody = bytes(28)
    assert ctypes.CDLL(None).connect(caller.fileno(), nobody, len(nobody)) == 0


def assert_quiet(servers):
    for server in servers.values():
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)
