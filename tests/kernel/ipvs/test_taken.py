"""Virtual servers of others, in a kernel that has ipvs: they cost no Service but their own."""

import socket
from dataclasses import replace

import pytest

from backends.ipvs.path import IpvsPath
from backends.ipvs.render.entries import packed
from backends.kernel.virtual_servers import Destination, Server, Settings, VirtualServers
from backends.kube_proxy.ipvs_leftovers import LINK
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.ports.data_path import BackendError
from tests.support.contract import Follower, until_accepted
from tests.support.iptables.applied import run
from tests.support.ipvs.options import PLAIN
from tests.support.tables import pod, service_port, table, vip

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
STAYS = "80 TCP is somebody else's, and stays so"
NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


def server(family, number, protocol=Protocol.TCP):
    """The virtual server that the Service of this number would have."""
    return Server(family, NUMBERS[protocol], packed(vip(family, number)), 80)


def make(family, *servers, port=9):
    """Let somebody have virtual servers, each with one endpoint."""
    with VirtualServers("making others'") as kernel:
        kernel.put_servers((each, Settings("wlc")) for each in servers)
        behind = Destination(packed(pod(family, 1)), port)
        kernel.put_destinations([(each, behind) for each in servers], weight=1)


def found():
    """What there is, with the weight of each endpoint's port."""
    with VirtualServers("reading") as kernel:
        return {
            each: (settings.scheduler, {to.port: n.weight for to, n in kernel.destinations(each)})
            for each, settings in kernel.servers()
        }


def weights():
    """The weights that endpoints have, behind each that has some."""
    return {each: behind for each, (_, behind) in found().items() if behind}


@pytest.fixture
def started(namespace):
    """How a process comes, in a namespace in which it may have had predecessors."""
    closing = []

    def start(family, **options):
        backend = IpvsPath(replace(PLAIN, **options)).backend(family)
        closing.append(backend)
        return Follower(backend)

    yield start
    for each in closing:
        each.close()


@FAMILIES
def test_it_costs_no_other_service_and_stays_until_its_owner_takes_it(family, started):
    taken, idle = server(family, 1), server(family, 3)
    make(family, taken, idle)
    before = found()
    wanted = table(
        family,
        service_port(family, 1, [1]),
        service_port(family, 2, [1]),
        service_port(family, 3, []),
    )
    for _ in range(2):  # also after a restart
        follower = started(family)
        with pytest.raises(BackendError, match=STAYS):
            follower.apply(wanted)
        follower.apply(wanted)
        assert {key.name for key in follower.reconciler.unheld} == {"web-1", "web-3"}
        ours = {server(family, 2): ("rr", {8080: 1})}
        assert found() == before | ours
        assert not follower.reconciler.audit().written

    with VirtualServers("removing others'") as kernel:
        kernel.delete_servers([taken, idle])
    follower.reconciler.audit()
    follower.apply(wanted)
    assert follower.reconciler.unheld == {}
    assert found() == ours | {taken: ("rr", {8080: 1})}


@FAMILIES
def test_one_that_comes_where_a_service_refused_is_not_overwritten_when_that_serves(
    family, started
):
    follower = started(family)
    follower.apply(table(family, service_port(family, 1, [])))
    make(family, server(family, 1))
    before = found()
    serving = table(family, service_port(family, 1, [1]))
    with pytest.raises(BackendError, match=STAYS):
        follower.apply(serving)
    follower.apply(serving)
    assert {key.name for key in follower.reconciler.unheld} == {"web-1"}
    assert found() == before


def test_while_what_is_refused_is_searched_kube_proxys_go_on(started, monkeypatch):
    """One endpoint has an address that the node's routes call one of broadcasts."""
    family = Family.IPV4
    run(f"ip link add {LINK} type dummy")
    for number in range(1, 5):
        run(f"ip address add {vip(family, number)}/32 dev {LINK}")
    run(f"ip route add broadcast {pod(family, 99)} dev lo table local")
    protocols = (Protocol.TCP, Protocol.UDP)
    kept = [server(family, n, protocol) for n in (1, 2) for protocol in protocols]
    unwanted = server(family, 4)
    make(family, *kept, unwanted, port=8080)
    ports = [
        service_port(family, n, [1], name=f"{protocol.value}-{n}", protocol=protocol)
        for n in (1, 2)
        for protocol in protocols
    ]
    refused = service_port(family, 3, [99])

    with monkeypatch.context() as patch:
        for letting_go in ("drain", "delete_destinations", "delete_servers"):
            patch.setattr(VirtualServers, letting_go, _nothing)
        path = IpvsPath(replace(PLAIN, take_over=True))
        backend = path.backend(family)
        follower = Follower(backend)
        until_accepted(follower, table(family, *ports, refused))
    assert {key.name for key in follower.reconciler.unheld} == {"web-3"}
    assert weights() == {each: {8080: 1} for each in (*kept, unwanted)}
    path.in_force(family)
    backend.tend(0.01)
    assert weights() == {each: {8080: 1} for each in kept}
    assert not follower.reconciler.audit().written
    backend.close()


def _nothing(kernel, of):
    """Stand for what lets virtual servers or endpoints go, where none is to."""
    assert list(of) == []
