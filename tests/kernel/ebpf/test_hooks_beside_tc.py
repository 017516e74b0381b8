"""Socket hooks and tc on one node: what a hook leaves is served all the same."""

import contextlib
import dataclasses
import select
import socket
import sys
import uuid

import msgspec
import pytest

from backends.ebpf.compiler import SOURCES, load_unit
from backends.ebpf.driver import device_layout
from backends.ebpf.driver.hooks import Hooks, remove
from backends.ebpf.driver.pods import PodFlag
from backends.kernel import namespaces
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.place import cgroup_root, joined
from tests.support.ebpf.tc import Tc, everyone, unit
from tests.support.net import plan
from tests.support.net.network import Network
from tests.support.waiting import SLOWER

pytestmark = pytest.mark.kernel

_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_SERVING = (plan.POD2, plan.POD3, plan.FAR1)
_VIPS = [f"10.96.0.{number}" for number in range(1, 13)]
_PORT = 8080
_LONGEST_S = 10 * SLOWER


class Both:
    """A node with both, and a pod that the hooks know."""

    def __init__(self, family, bytecode, links):
        self.family = family
        self.network = Network()
        sock = load_unit(SOURCES / "sock.bpf.c", family, cache=bytecode)
        tc = unit(family, bytecode)
        both = msgspec.structs.replace(
            tc, maps={**sock.maps, **tc.maps}, programs={**sock.programs, **tc.programs}
        )
        self.tc = Tc(family, both)
        self.tc.attach(self.network.node, priority=1)
        self.forget()
        self.cgroup = cgroup_root() / f"kproxy-test-{uuid.uuid4().hex[:12]}"
        self.cgroup.mkdir()
        self._links = links
        Hooks(links, self.cgroup).attach(self.tc.programs, sock.programs)
        self.servers = {}
        for address in _SERVING:
            with self.network.namespaces[plan.PLACES[address]].entered():
                server = socket.socket(_AF[family], socket.SOCK_DGRAM)
                server.bind((self.at(address), _PORT))
            self.servers[server] = address

    def forget(self):
        """Begin anew: without Services and flows, and with a pod that is known."""
        self.tc.forget()
        with self.network.node.entered():
            cookie = namespaces.cookie()
        with self.network.namespaces["pod1"].entered():
            self._pod = namespaces.cookie().to_bytes(8, sys.byteorder)
        host = self.tc.maps["host"]
        settings = device_layout.parse_host(host.lookup(device_layout.ONLY))
        host.update(
            device_layout.ONLY,
            device_layout.host(dataclasses.replace(settings, netns_cookie=cookie)),
        )
        self.know_pod()

    def know_pod(self, flags=PodFlag.KNOWN):
        value = self.tc.packed(plan.POD1) + flags.to_bytes(4, sys.byteorder)
        self.tc.maps["pods"].update(self._pod, value)

    def at(self, address):
        return plan.in_family(address, self.family)

    def serve(self, vip, *addresses, service=1, masquerade=False, affinity_s=0):
        targets = [(address, _PORT) for address in addresses]
        uses = everyone(masquerade=masquerade)
        self.tc.frontend(
            (vip, 80), Protocol.UDP, targets, uses, affinity_s=affinity_s, service=service
        )

    @contextlib.contextmanager
    def caller(self, *, hooked=True):
        group = joined(self.cgroup) if hooked else contextlib.nullcontext()
        with self.network.namespaces["pod1"].entered(), group:
            made = socket.socket(_AF[self.family], socket.SOCK_DGRAM)
        made.settimeout(_LONGEST_S)
        with made:
            yield made

    def ask(self, caller, vip):
        """Send to a frontend; return which endpoint it was, having heard the frontend."""
        before = self.tc.counts().get("SOCKET_TRANSLATED", 0)
        asked = self._ask(caller, (self.at(vip), 80))
        return asked, self.tc.counts().get("SOCKET_TRANSLATED", 0) > before

    def ask_straight(self, caller, endpoint):
        self._ask(caller, (self.at(endpoint), _PORT))

    def _ask(self, caller, place):
        caller.sendto(b"question", place)
        (server,), _, _ = select.select(self.servers, [], [], _LONGEST_S)
        content, client = server.recvfrom(100)
        server.sendto(content, client)
        assert caller.recvfrom(100)[1][:2] == place
        return self.servers[server]

    def close(self):
        for server in self.servers:
            server.close()
        remove(self._links)
        self.cgroup.rmdir()
        self.tc.close()
        self.network.close()


@pytest.fixture(scope="module", params=Family, ids=lambda family: family.value)
def node(request, bytecode, tmp_path_factory):
    with bpf_file_system(tmp_path_factory.mktemp("bpf")) as folder:
        made = Both(request.param, bytecode, folder / "links")
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def both(node):
    node.forget()
    return node


@contextlib.contextmanager
def bpf_file_system(folder):
    output_of("mount", "-t", "bpf", "bpf", folder, timeout_s=_LONGEST_S)
    try:
        yield folder
    finally:
        output_of("umount", "--lazy", folder, timeout_s=_LONGEST_S)


def test_a_client_has_one_endpoint_whoever_translates(both):
    both.serve(_VIPS[0], *_SERVING, affinity_s=60)
    affinity = both.tc.maps["affinity"]
    for turn in range(8):
        affinity.delete_many([key for key, _ in affinity.items()])
        found = []
        for hooked in (turn % 2 == 0, turn % 2 == 1):
            with both.caller(hooked=hooked) as caller:
                found.append(both.ask(caller, _VIPS[0]))
        (first, by_hook), (second, by_hook_then) = found
        assert first == second
        assert {by_hook, by_hook_then} == {True, False}


def test_two_frontends_with_one_endpoint_answer_one_socket_each_as_itself(both):
    for number, vip in enumerate(_VIPS[:2]):
        both.serve(vip, plan.POD2, service=1 + number)
    with both.caller() as caller:
        for _ in range(3):
            assert both.ask(caller, _VIPS[0]) == (plan.POD2, True)
            assert both.ask(caller, _VIPS[1]) == (plan.POD2, False)


def test_an_endpoint_that_tc_serves_the_socket_by_is_not_called_straight(both):
    for number, vip in enumerate(_VIPS[:2]):
        both.serve(vip, plan.POD2, service=1 + number)
    both.know_pod(PodFlag(0))
    with both.caller() as caller:
        assert both.ask(caller, _VIPS[0]) == (plan.POD2, False)
        both.know_pod()
        for _ in range(3):
            assert both.ask(caller, _VIPS[1]) == (plan.POD2, False)
            assert both.ask(caller, _VIPS[0]) == (plan.POD2, False)


def test_an_endpoint_that_is_called_straight_may_be_one_of_tc_as_well(both):
    both.serve(_VIPS[0], plan.POD2)
    both.serve(_VIPS[1], plan.POD2, service=2, masquerade=True)
    with both.caller() as caller:
        for _ in range(3):
            assert both.ask(caller, _VIPS[0]) == (plan.POD2, True)
            assert both.ask(caller, _VIPS[1]) == (plan.POD2, False)


def test_an_endpoint_that_is_called_straight_answers_as_itself_beside_its_frontend(both):
    both.serve(_VIPS[0], plan.POD2)
    with both.caller() as caller:
        for turn in range(3):
            assert both.ask(caller, _VIPS[0]) == (plan.POD2, turn == 0)
            both.ask_straight(caller, plan.POD2)


def test_a_socket_may_ask_more_frontends_than_it_remembers(both):
    for number, vip in enumerate(_VIPS):
        both.serve(vip, _SERVING[number % 3], service=1 + number)
    with both.caller() as caller:
        for _ in range(2):
            for number, vip in enumerate(_VIPS):
                assert both.ask(caller, vip)[0] == _SERVING[number % 3]


def test_a_socket_keeps_its_endpoint_when_its_pod_becomes_known(both):
    both.know_pod(PodFlag(0))
    both.serve(_VIPS[0], *_SERVING)
    with both.caller() as caller:
        endpoint, by_hook = both.ask(caller, _VIPS[0])
        assert not by_hook
        both.know_pod()
        for _ in range(10):
            assert both.ask(caller, _VIPS[0]) == (endpoint, False)
