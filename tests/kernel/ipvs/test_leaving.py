"""A frontend that goes while connections to it are open, in a kernel that has ipvs.

The node itself is the client and the only endpoint: so one namespace has all that is needed.
"""

import contextlib
import socket
import time
from dataclasses import replace

import pytest

from backends.ipvs.path import IpvsPath
from backends.kernel.virtual_servers import Timeouts, VirtualServers
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import Target
from tests.support.contract import Follower
from tests.support.iptables.applied import run
from tests.support.ipvs.on_node import forget_connections
from tests.support.ipvs.options import PLAIN
from tests.support.tables import service_port, table, vip
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
KINDS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
TCP_FIN_S = 1


class Node:
    """A node with one Service; `start` is what a process does that finds what the last one left."""

    def __init__(self, family):
        self.family = family
        self._closing = contextlib.ExitStack()
        run("ip link add uplink type dummy")
        run("ip link set uplink up")
        ip = f"ip -{4 if family is Family.IPV4 else 6}"
        length = family.bits
        run(f"{ip} address add {NODE[family]}/{length} dev uplink")
        self.start()

    def start(self):
        options = replace(PLAIN, timeouts=Timeouts(0, TCP_FIN_S, 0))
        self._backend = IpvsPath(options).backend(self.family)
        self._closing.callback(self._backend.close)
        self._follower = Follower(self._backend)

    def serves(self, protocol, *ports):
        """Bring a table into force, in which a Service has these endpoints or does not exist."""
        targets = tuple(Target(NODE[self.family], port, local=True) for port in ports)
        with_targets = replace(
            service_port(self.family, 1, [1], protocol=protocol), targets=targets
        )
        self._follower.apply(table(self.family, *([with_targets] if ports else [])))

    def is_settled(self):
        """Say whether it has nothing to write."""
        return not self._follower.reconciler.audit().written

    def tend_until(self, condition, what):
        def tended():
            self._backend.tend(0.01)
            return condition()

        until(tended, within_s=LONGEST_S, what=what)

    def weights(self):
        """Return the weight of each endpoint's port behind the one virtual server, None without."""
        with VirtualServers("reading") as kernel:
            servers = [server for server, _ in kernel.servers()]
            assert len(servers) < 2
            for server in servers:
                return {each.port: load.weight for each, load in kernel.destinations(server)}
        return None

    def withdraws(self):
        """Do what a process in another mode does; say whether no open connection is left."""
        (former,) = IpvsPath(PLAIN).former(self.family)
        return former.withdraw()

    def left(self):
        """Return what sets say of those that are there for open connections alone."""
        prefix = f"kproxy-ipvs-{4 if self.family is Family.IPV4 else 6}-leaving"
        saved = run("ipset save").splitlines()
        return [line.split()[2] for line in saved if line.startswith(f"add {prefix}")]

    def listening(self):
        return socket.create_server((NODE[self.family], 0), family=KINDS[self.family])

    def connected(self):
        return socket.create_connection((vip(self.family, 1), 80), LONGEST_S)

    def close(self):
        self._closing.close()


@pytest.fixture(params=Family, ids=lambda family: family.value)
def node(request, namespace):
    made = Node(request.param)
    yield made
    made.close()


def spoken(client, served):
    """Whether both ends still hear each other."""
    client.sendall(b"?")
    served.settimeout(LONGEST_S)
    assert served.recv(1) == b"?"
    served.sendall(b"!")
    return client.recv(1) == b"!"


def test_it_goes_with_its_last_connection_whoever_was_killed_meanwhile(node):
    with node.listening() as listening:
        port = listening.getsockname()[1]
        node.serves(Protocol.TCP, port)
        with node.connected() as client, listening.accept()[0] as served:
            node.serves(Protocol.TCP)
            node.start()
            node.serves(Protocol.TCP)
            assert node.is_settled()
            node.tend_until(lambda: True, "it looks")
            assert node.weights() == {port: 0}
            address = vip(node.family, 1)
            assert node.left() == [f"{address},tcp:80", address]
            assert spoken(client, served)
            with pytest.raises(ConnectionRefusedError):
                node.connected()
    forget_connections()
    node.tend_until(lambda: node.weights() is None, "the server is gone")
    assert node.left() == []
    assert vip(node.family, 1) not in run("ip route show table all") + run(
        "ip -6 route show table all"
    )
    assert node.is_settled()


def test_one_to_which_its_client_sends_nothing_more_streams_on(node):
    """To the kernel it is inactive, as those are that both sides have closed."""
    with node.listening() as listening:
        port = listening.getsockname()[1]
        node.serves(Protocol.TCP, port)
        with node.connected() as client, listening.accept()[0] as served:
            client.shutdown(socket.SHUT_WR)
            node.serves(Protocol.TCP)
            closed_at = time.monotonic()

            def has_streamed_for_long():
                served.sendall(b"!")
                assert client.recv(1) == b"!"
                return time.monotonic() > closed_at + 3 * TCP_FIN_S

            node.tend_until(has_streamed_for_long, "it streams")
            assert node.weights() == {port: 0}
    forget_connections()
    node.tend_until(lambda: node.weights() is None, "the server is gone")


def test_one_that_returns_takes_connections_again(node):
    with node.listening() as listening:
        port = listening.getsockname()[1]
        node.serves(Protocol.TCP, port)
        with node.connected() as client, listening.accept()[0] as served:
            node.serves(Protocol.TCP)
            assert node.weights() == {port: 0}
            node.serves(Protocol.TCP, port)
            assert node.weights() == {port: 1}
            assert node.left() == []
            assert spoken(client, served)
            with node.connected() as another, listening.accept()[0] as served_too:
                assert spoken(another, served_too)
        node.tend_until(lambda: True, "it looks")
        assert node.weights() == {port: 1}
        assert node.is_settled()


def test_an_endpoint_that_goes_keeps_its_connection_and_gets_no_other(node):
    with node.listening() as old, node.listening() as new:
        ports = [each.getsockname()[1] for each in (old, new)]
        node.serves(Protocol.TCP, ports[0])
        with node.connected() as client, old.accept()[0] as served:
            node.serves(Protocol.TCP, ports[1])
            assert node.weights() == {ports[0]: 0, ports[1]: 1}
            assert node.left() == []
            with node.connected() as another, new.accept()[0] as served_too:
                assert spoken(another, served_too)
            assert spoken(client, served)
        forget_connections()
        node.tend_until(lambda: node.weights() == {ports[1]: 1}, "the endpoint is gone")


def test_after_it_the_nodes_new_connections_pass_and_open_ones_go_on(node):
    with node.listening() as listening:
        node.serves(Protocol.TCP, listening.getsockname()[1])
        with node.connected() as client, listening.accept()[0] as served:
            for _ in range(2):
                assert not node.withdraws()
            everywhere = ("::" if node.family is Family.IPV6 else "0.0.0.0", 80)
            with (
                socket.create_server(everywhere, family=KINDS[node.family]) as beside,
                node.connected() as another,
                beside.accept()[0] as served_too,
            ):
                assert spoken(another, served_too)
                assert spoken(client, served)
            node.start()
            node.serves(Protocol.TCP, listening.getsockname()[1])
            with node.connected() as another, listening.accept()[0] as served_too:
                assert spoken(another, served_too)
            assert not node.withdraws()
            assert spoken(client, served)


def test_udp_goes_at_once(node):
    kind = KINDS[node.family]
    with (
        socket.socket(kind, socket.SOCK_DGRAM) as served,
        socket.socket(kind, socket.SOCK_DGRAM) as client,
    ):
        served.bind((NODE[node.family], 0))
        served.settimeout(LONGEST_S)
        node.serves(Protocol.UDP, served.getsockname()[1])
        client.connect((vip(node.family, 1), 80))
        client.send(b"?")
        assert served.recv(1) == b"?"
        node.serves(Protocol.UDP)
        assert node.weights() is None
        assert node.left() == []
