"""Connected sockets that hooks translated: listed, destroyed, and forgotten once closed."""

import socket
from ipaddress import ip_network

import pytest

from backends.ebpf.driver.namespaces import Namespaces
from backends.ebpf.driver.sockets import TRANSLATED_SOCKETS
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations
from kproxy.core.objects import Protocol
from tests.support.ebpf.socket_hooks import HookedNetwork
from tests.support.tables import pod, service_port, table, vip

pytestmark = pytest.mark.kernel

_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_KIND = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_EVERYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_SWEEP_S = 20.0


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture(scope="module")
def hooked(bytecode):
    network = HookedNetwork(bytecode)
    try:
        for family in Family:
            services = [service_port(family, n, [10 + n], protocol=Protocol.UDP) for n in (1, 2)]
            services.append(service_port(family, 1, [11], protocol=Protocol.TCP))
            made = table(family, *services)
            network.families[family].program(made)
            network.tell_pods(family, made.rules.local_pods)
            pods = network.pods(family)
            network.know_pods(family, pods, vip(family, 1))
            pods.close()
        yield network
    finally:
        network.close()


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sockets(hooked, family, clock):
    held = hooked.families[family].maps["udp_sockets"]
    held.delete_many([key for key, _ in held.items()])
    with hooked.network.node.entered():
        yield hooked.sockets(family, Protocol.UDP, clock)


@pytest.fixture(params=TRANSLATED_SOCKETS, ids=lambda protocol: protocol.value)
def protocol(request, hooked, family):
    """Each protocol, with somebody who listens at the endpoint."""
    with hooked.network.namespaces["pod1"].entered(), socket.socket(_AF[family]) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((pod(family, 11), 8080))
        listener.listen()
        yield request.param


def connected(hooked, client, family, address, port, domain=None, kind=socket.SOCK_DGRAM):
    with hooked.client(client):
        made = socket.socket(domain or _AF[family], kind)
        made.settimeout(5)
        made.connect((address, port))
    return made


def everything(family):
    return Destinations(networks=(ip_network(_EVERYWHERE[family]),))


def held(hooked, family):
    return len(list(hooked.families[family].maps["udp_sockets"].items()))


@pytest.mark.parametrize("client", ["node", "pod3"])
def test_a_translated_socket_is_a_flow(hooked, sockets, family, client):
    with connected(hooked, client, family, vip(family, 1), 80) as caller:
        (flow,) = sockets.flows(everything(family))
        own = caller.getsockname()[:2]
    assert (flow.source, flow.source_port) == own
    assert (flow.destination, flow.destination_port) == (vip(family, 1), 80)
    assert (flow.reply_source, flow.reply_source_port) == (pod(family, 11), 8080)
    assert (flow.reply_destination, flow.reply_destination_port) == own


def test_only_flows_to_what_is_wanted_are_told(hooked, sockets, family):
    with (
        connected(hooked, "node", family, vip(family, 1), 80),
        connected(hooked, "pod3", family, vip(family, 2), 80),
    ):
        wanted = Destinations(vips=frozenset({(vip(family, 2), 80)}))
        assert [each.destination for each in sockets.flows(wanted)] == [vip(family, 2)]


@pytest.mark.parametrize("client", ["node", "pod3"])
def test_a_forgotten_socket_is_destroyed_and_one_that_called_straight_lives(
    hooked, sockets, family, client
):
    with (
        connected(hooked, client, family, vip(family, 1), 80) as stale,
        connected(hooked, client, family, vip(family, 2), 80) as other,
        connected(hooked, client, family, pod(family, 11), 8080) as straight,
    ):
        wanted = Destinations(vips=frozenset({(vip(family, 1), 80)}))
        assert sockets.forget_flows(list(sockets.flows(wanted))) == 1
        with pytest.raises(ConnectionAbortedError):
            stale.recv(1)
        for living in (other, straight):
            living.getpeername()
        assert held(hooked, family) == 1


@pytest.mark.parametrize("family", [Family.IPV4], indirect=True)
def test_mapped_sockets_are_destroyed_too(hooked, sockets, family):
    mapped = f"::ffff:{vip(family, 1)}"
    with connected(hooked, "pod3", family, mapped, 80, socket.AF_INET6) as stale:
        assert sockets.forget_flows(list(sockets.flows(everything(family)))) == 1
        with pytest.raises(ConnectionAbortedError):
            stale.recv(1)


@pytest.mark.parametrize("again", ["straight", "elsewhere"])
def test_a_socket_connected_anew_since_it_was_listed_lives(hooked, sockets, family, again):
    with connected(hooked, "pod3", family, vip(family, 1), 80) as caller:
        flows = list(sockets.flows(everything(family)))
        place = (pod(family, 11), 8080) if again == "straight" else (vip(family, 2), 80)
        caller.connect(place)
        assert sockets.forget_flows(flows) == 0
        assert caller.getpeername()[:2] == place


def closed_unseen(hooked, family, protocol, clients):
    """Leave in the map what it says of sockets that have closed, as if no hook had seen it."""
    entries = hooked.families[family].maps[TRANSLATED_SOCKETS[protocol]]
    for client in clients:
        with connected(hooked, client, family, vip(family, 1), 80, kind=_KIND[protocol]):
            before = dict(entries.items())
        entries.update_many(before)
    return entries


def test_sockets_that_closed_unseen_are_forgotten_within_two_rounds(
    hooked, family, clock, protocol
):
    sockets = hooked.sockets(family, protocol, clock)
    with connected(hooked, "node", family, vip(family, 1), 80, kind=_KIND[protocol]):
        entries = closed_unseen(hooked, family, protocol, ["node", "pod3"])
        with hooked.network.node.entered():
            hooked.namespaces.search()
            for left in (3, 1, 1):
                clock.now_s += _SWEEP_S
                while sockets.tend(0.0):
                    pass
                assert len(list(entries.items())) == left
    assert not list(entries.items())


def test_sockets_of_a_namespace_out_of_sight_may_live(hooked, family, clock, protocol, tmp_path):
    with hooked.network.node.entered():
        seen = Namespaces(tmp_path)
    sockets = hooked.sockets(family, protocol, clock, seen)
    entries = closed_unseen(hooked, family, protocol, ["node", "pod3"])
    with hooked.network.node.entered():
        for left in (2, 1, 1):
            clock.now_s += _SWEEP_S
            sockets.tend(1.0)
            assert len(list(entries.items())) == left
    entries.delete_many([key for key, _ in entries.items()])
