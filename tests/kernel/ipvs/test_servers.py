"""Virtual servers in a kernel that has ipvs: as written, drained, and others' left alone."""

import socket
import sys
from dataclasses import replace

import pytest

from backends.ipvs.driver.servers import Servers, raw_server
from backends.ipvs.render import entries
from backends.ipvs.render.entries import (
    destination_key,
    marked,
    marked_bytes,
    server_key,
    split_server,
)
from backends.ipvs.render.marks import FIRST_MARK
from backends.ipvs.render.renderer import Surroundings
from backends.ipvs.render.service_port import Options
from backends.kernel.virtual_servers import Server, Settings, VirtualServers
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.image import Changes, diff
from kproxy.core.objects import Protocol
from kproxy.core.table import Use, Via, Vip
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import changes, rules, service_port
from tests.support.ipvs.owners import nobodys, owners
from tests.support.ipvs.world import World
from tests.support.waiting import LONGEST_S

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
FOREIGN_MARK = 0x7001


def everything(family, scheduler="rr"):
    """The virtual servers of a table with each protocol, affinity and both lists."""
    ports = [service_port(family, n, endpoints=(2, 3), protocol=p) for n, p in enumerate(Protocol)]
    local = service_port(family, 5, endpoints=(2, 3, 4), protocol=Protocol.UDP)
    local = replace(
        local,
        frontends=(*local.frontends, Vip(Via.LOAD_BALANCER, LOAD_BALANCER[family], 443)),
        external=Use.LOCAL_TARGETS,
        external_local=True,
        local_targets=tuple(target for target in local.targets if target.local),
        sources=(canonical_network(f"{NODE[family]}/{family.bits}"),),
    )
    sticky = service_port(family, 6, endpoints=(2, 3), affinity_timeout_s=10800)
    world = World(family, Options(scheduler=scheduler))
    table = changes(family, *ports, local, sticky, rules=rules(family))
    world.update(table, Surroundings(frozenset({NODE[family]}), NODE[family]))
    return {key: value for key, value in world.image.items() if key[:1] in (b"V", b"D")}


def owning(image):
    """A way to know as ours what an image has."""
    return {split_server(key) for key in image}.__contains__


def servers_of(family, owns, **also):
    """A driver of the servers that it is told to own."""
    return Servers(family, owners(owns, **also))


def put(servers, changes):
    """Let a driver make what is missing, as a commit does."""
    servers.put(changes, servers.unclaimed(changes))


def foreign(family):
    """What somebody else keeps beside us."""
    address = entries.packed("198.51.100.9" if family is Family.IPV4 else "2001:db8:77::9")
    return [
        (Server(family, socket.IPPROTO_TCP, address, 80), Settings("wlc", 1, 300)),
        (Server(family, mark=FOREIGN_MARK), Settings("rr")),
    ]


@FAMILIES
def test_what_was_written_is_read_back_and_others_stay_as_they_were(family):
    want = everything(family)
    with VirtualServers("making others'") as others:
        others.put_servers(foreign(family))
    servers = servers_of(family, owning(want))
    put(servers, diff(servers.observe(), want))
    assert servers.observe() == want

    other = everything(family, "lc")
    put(servers, diff(want, other))
    assert servers.observe() == other
    servers.drop(Changes({}, frozenset(other)))
    assert servers.observe() == {}
    with VirtualServers("reading others'") as others:
        assert sorted(others.servers()) == sorted(foreign(family))


@FAMILIES
def test_a_server_of_somebody_else_is_not_taken(family):
    (taken, settings), *_ = foreign(family)
    with VirtualServers("making others'") as others:
        others.put_servers([(taken, settings)])
    place = bytes([taken.protocol]) + taken.address + b"\0\x50"
    wanted = Changes({server_key(place): b"rr:0:0"}, frozenset())
    servers = servers_of(family, nobodys)
    unclaimed = servers.unclaimed(wanted)
    with pytest.raises(BackendError, match="80 TCP is somebody else's, and stays so"):
        servers.put(wanted, unclaimed)
    assert servers.taken() == {entries.place_of(place)}, "it came since the last reading"
    assert servers.observe() == {}
    with pytest.raises(BackendError, match="80 TCP is somebody else's, and stays so"):
        servers.unclaimed(wanted)
    with VirtualServers("reading others'") as others:
        assert others.servers() == [(taken, settings)]

    servers.look_again()
    assert servers.taken() == {entries.place_of(place)}
    with VirtualServers("removing others'") as others:
        others.delete_servers([taken])
    servers.observe()
    assert servers.taken() == set()
    put(servers, wanted)
    assert servers.observe() == wanted.put


@FAMILIES
def test_of_what_kube_proxy_left_the_wanted_is_adopted_and_the_rest_goes_if_not_excluded(family):
    every = everything(family)
    put(servers_of(family, nobodys), Changes(every, frozenset()))
    address = entries.packed(LOAD_BALANCER[family])
    excluded = [canonical_network(f"{LOAD_BALANCER[each]}/{each.bits}") for each in Family]
    made = {split_server(key) for key in every if key[:1] == b"V"}
    unwanted, *rest = sorted(raw for raw in made if not marked(raw) and address not in raw)
    wanted = frozenset(rest)

    def there():
        with VirtualServers("reading") as kernel:
            return {raw_server(server) for server, _ in kernel.servers()}

    adopting = servers_of(
        family,
        nobodys,
        wanted=wanted.__contains__,
        made_by_kube_proxy=lambda server: not server.mark and raw_server(server) in made,
        excluded=excluded,
    )
    before = there()
    assert {split_server(key) for key in adopting.observe()} - {None} == wanted
    assert adopting.taken() == set()
    assert there() == before, "nothing goes until our rules are in force"
    adopting.take_over()
    adopting.tend(LONGEST_S)
    assert before - there() == {unwanted}, "the excluded stay, and so do those of marks"


@FAMILIES
def test_what_was_ours_stays_so_when_nobody_else_remembers(family):
    want = everything(family)
    servers = servers_of(family, nobodys)
    put(servers, Changes(want, frozenset()))
    assert servers.observe() == want
    servers.drop(Changes({}, frozenset(want)))
    with VirtualServers("making others'") as others:
        others.put_servers(foreign(family))
    assert servers.observe() == {}


@FAMILIES
def test_the_other_familys_servers_are_no_matter_of_ours(family):
    want = everything(family)
    servers = servers_of(family, lambda raw: True)
    put(servers, Changes(want, frozenset()))
    other = next(each for each in Family if each is not family)

    assert servers_of(other, lambda raw: True).observe() == {}


def test_a_destination_that_came_to_be_otherwise_is_repaired():
    family = Family.IPV4
    want = everything(family)
    servers = servers_of(family, owning(want))
    put(servers, Changes(want, frozenset()))
    with VirtualServers("disturbing") as others:
        server, _ = next(each for each in others.servers() if not each[0].mark)
        ((first, _), (second, _), *_) = others.destinations(server)
        others.put_destinations([(server, first)], weight=7)
        others.drain([(server, second)])

    altered = diff(servers.observe(), want)
    assert len(altered) == 2
    put(servers, altered)
    assert servers.observe() == want


def test_an_idle_destination_leaves_at_once_and_one_with_a_connection_when_that_has_ended():
    """The node itself is the endpoint: so one namespace has all that a connection needs."""
    family = Family.IPV4
    want_server = bytes([socket.IPPROTO_TCP, 127, 0, 0, 2, 0, 80])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        target = destination_key(want_server, "127.0.0.1", port)
        idle = destination_key(want_server, "127.0.0.1", port + 1 if port < 65535 else 1)
        want = {server_key(want_server): b"rr:0:0", target: b"1"}
        servers = servers_of(family, owning(want))
        put(servers, Changes(want, frozenset()))
        with socket.create_connection(("127.0.0.2", 80), 60), listening.accept()[0]:
            put(servers, Changes({idle: b"1"}, frozenset()))
            servers.drop(Changes({}, frozenset({idle, target})))
            assert servers.observe() == {}
            servers.tend(LONGEST_S)
            assert servers.leaving()
            assert weights() == {port: 0}

            restarted = servers_of(family, owning(want))
            put(restarted, diff(restarted.observe(), want))
            assert weights() == {port: 1}
            restarted.tend(LONGEST_S)
            assert not restarted.leaving()
            restarted.drop(Changes({}, frozenset(want)))
            assert weights() == {port: 0}


def test_those_that_there_was_no_time_for_come_first_the_next_time():
    family = Family.IPV4
    want = everything(family)
    put(servers_of(family, nobodys), Changes(want, frozenset()))
    with VirtualServers("draining") as kernel:
        found = [server for server, _ in kernel.servers()]
        kernel.drain((each, behind) for each in found for behind, _ in kernel.destinations(each))
        servers = servers_of(family, owning(want))
        assert servers.observe() == {}
        for left in reversed(range(len(found))):
            servers.tend(budget_s=0.0)
            assert len(kernel.servers()) == left


def weights():
    """The weight of each destination's port behind the one virtual server."""
    with VirtualServers("reading") as kernel:
        ((server, _),) = kernel.servers()
        return {each.port: load.weight for each, load in kernel.destinations(server)}


@pytest.mark.parametrize("mark", [0, FIRST_MARK | 1 << 29], ids=["by address", "by mark"])
def test_udp_leaves_at_once_whatever_flows(mark):
    place = bytes([socket.IPPROTO_UDP, 127, 0, 0, 2, 0, 53])
    server = marked_bytes(mark) if mark else place
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        served.bind(("127.0.0.1", 0))
        target = destination_key(server, *served.getsockname())
        want = {server_key(server): b"rr:0:0", target: b"1"}
        servers = servers_of(Family.IPV4, owning(want))
        put(servers, Changes(want, frozenset()))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.to_bytes(4, sys.byteorder))
        client.sendto(b"asked", ("127.0.0.2", 53))
        served.settimeout(60)
        assert served.recv(9) == b"asked"

        servers.drop(Changes({}, frozenset(want)))
        with VirtualServers("reading") as kernel:
            assert kernel.servers() == []
        assert not servers.leaving()


def test_a_scheduler_that_the_kernel_lacks_is_refused():
    want = {server_key(marked_bytes(FIRST_MARK)): b"nonesuch:0:0"}
    with pytest.raises(BackendError, match="writing virtual servers"):
        put(servers_of(Family.IPV4, owning(want)), Changes(want, frozenset()))
