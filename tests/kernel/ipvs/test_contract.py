"""The ipvs data path keeps the contract of all data paths, in a kernel that has ipvs."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from dataclasses import replace

import pytest

from backends.ipvs.driver import parts
from backends.ipvs.driver.link import LINK, TABLE
from backends.ipvs.path import IpvsPath
from backends.ipvs.render.entries import packed
from backends.ipvs.render.marks import is_ours
from backends.kernel import ipset_elements
from backends.kernel.host_routes import HostRoutes
from backends.kernel.virtual_servers import Destination, Server, Settings, VirtualServers
from backends.kernel.xtables import tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.table import Target
from kproxy.ports.data_path import BackendError
from tests.kernel.iptables.test_contract import IptablesRig
from tests.support.contract import BackendContract, PairContract
from tests.support.iptables.applied import iptables, run
from tests.support.ipvs.options import PLAIN
from tests.support.tables import pod, service_port, vip

pytestmark = pytest.mark.kernel

NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
THEIRS = {Family.IPV4: "198.51.100.9", Family.IPV6: "2001:db8:77::9"}
LINK_LOCAL = "fe80::8"
THEIR_MARK = 0x7001
THEIR_TABLE = 99

# What the host has: for an emulated one most of a start is to ask that, and it stays the same.
_required = functools.cache(parts.require)


class IpvsRig:
    """A node on which others have all that ipvs mode has: what they do in iptables is a rig's."""

    def __init__(self, others, variant):
        self.family = others.family
        self._others = others
        self._variant = variant
        self._closing = contextlib.ExitStack()
        patch = self._closing.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(parts, "require", _required)
        # With it come routes to anycast addresses of the node, which are nobody's.
        run("sysctl -qw net.ipv6.conf.all.forwarding=1")
        run("ip link add theirs type dummy")
        run("ip link set theirs up")
        for family in Family:
            length = 24 if family is Family.IPV4 else 64
            self._ip(f"address add {NODE[family]}/{length} dev theirs", family)
            self._ip(f"rule add pref 200 fwmark {THEIR_MARK} lookup {THEIR_TABLE}", family)
            self._ip(f"route add {THEIRS[family]} dev theirs table {THEIR_TABLE}", family)
            servers = (
                Server(family, socket.IPPROTO_TCP, packed(THEIRS[family]), 80),
                Server(family, mark=THEIR_MARK),
            )
            with VirtualServers("making others'") as kernel:
                kernel.put_servers((each, Settings("wlc", 1, 300)) for each in servers)
                behind = Destination(packed(THEIRS[family]), 8080)
                kernel.put_destinations([(each, behind) for each in servers], weight=5)
        for table in ("mangle", "filter"):
            self.iptables(f"-t {table} -N MORE")
            self.iptables(f"-t {table} -A FORWARD -p udp -j MORE")

    def both(self):
        path = IpvsPath(replace(PLAIN, variant=self._variant))
        backends = {family: path.backend(family) for family in Family}
        for backend in backends.values():
            self._closing.callback(backend.close)
        return backends

    def backend(self):
        backend = IpvsPath(replace(PLAIN, variant=self._variant)).backend(self.family)
        self._closing.callback(backend.close)
        return backend

    def foreign(self):
        addresses = [each for each in json.loads(run("ip -json address")) if each["ifname"] != LINK]
        routing = [
            line
            for family in Family
            for shown in ("rule", "route show table all")
            for line in self._ip(shown, family).splitlines()
            if LINK not in line and str(TABLE) not in line
        ]
        elements = [each for each in run("ipset save").splitlines() if "kproxy-" not in each]
        with VirtualServers("reading others'") as kernel:
            servers = [
                (server, settings, tuple(kernel.destinations(server)))
                for server, settings in kernel.servers()
                if not self._may_be_ours(server)
            ]
        told = (self._others.foreign(), addresses, routing, elements, sorted(servers, key=repr))
        return tuple(map(repr, told))

    def meddle(self):
        """Take something of each kind away, or change it."""
        for meddling in MEDDLINGS:
            meddling(self)

    def refusals(self):
        yield self._with_a_server_in_the_way()
        yield self._refusing(ipset_elements, "add")
        yield self._refusing(tools, "restore")
        yield self._refusing(VirtualServers, "put_servers")
        yield self._refusing(VirtualServers, "make_servers")
        yield self._refusing(VirtualServers, "put_destinations")
        yield self._with_a_link_in_the_way()
        yield self._refusing(VirtualServers, "drain")
        yield self._refusing(HostRoutes, "delete")
        yield self._refusing(ipset_elements, "remove")

    def without_room(self):
        port = service_port(self.family, 60, [7, 99], affinity_s=60)  # no other has 99
        if self.family is Family.IPV4:
            return port, self._with_an_endpoint_that_is_a_broadcast_address(pod(self.family, 99))
        beyond = Target(LINK_LOCAL, 8080, local=False)
        return replace(port, targets=(port.targets[0], beyond)), self._until_link_local_is_here()

    def close(self):
        self._closing.close()

    def iptables(self, rest):
        """Run iptables for the family."""
        return run(f"{iptables(self.family, self._variant)} {rest}")

    def served(self):
        """Return our virtual servers of the family with what is behind them, in an order."""
        with VirtualServers("reading ours") as kernel:
            return [
                (server, [destination for destination, _ in kernel.destinations(server)])
                for server, _ in sorted(kernel.servers(), key=repr)
                if server.family is self.family and self._may_be_ours(server)
            ]

    def set_name(self, name):
        """Return one of the family's sets."""
        return f"kproxy-ipvs-{4 if self.family is Family.IPV4 else 6}-{name}"

    def ip(self, rest):
        """Run ip(8) for the family."""
        return self._ip(rest, self.family)

    def _ip(self, rest, family):
        return run(f"ip {'-4' if family is Family.IPV4 else '-6'} {rest}")

    def _may_be_ours(self, server):
        if server.mark:
            return is_ours(server.mark)
        return server.address != packed(THEIRS[server.family])

    @contextlib.contextmanager
    def _with_a_server_in_the_way(self):
        """Somebody has a virtual server at a clusterIP: that is seen before anything is written."""
        server = Server(self.family, socket.IPPROTO_TCP, packed(vip(self.family, 3)), 80)
        with VirtualServers("making others'") as kernel:
            kernel.put_servers([(server, Settings("rr"))])
            yield self.backend()
            kernel.delete_servers([server])

    @contextlib.contextmanager
    def _with_a_link_in_the_way(self):
        """A link of another kind has the name of ours."""
        run(f"ip link delete {LINK}")
        run(f"ip link add {LINK} type veth peer name another")
        yield self.backend()
        run(f"ip link delete {LINK}")

    @contextlib.contextmanager
    def _refusing(self, of, name):
        """The kernel takes no writes of a kind, as soon as there is something to write."""

        def refusing(*arguments, **more):
            *others, wanted = map(_listed, arguments)
            if wanted:
                raise BackendError("the test", "refuses", transient=True)
            return genuine(*others, wanted, **more)

        genuine = getattr(of, name)
        self.iptables("-t mangle -F KPROXY-IPVS-SERVICES")  # else no rule is to be written
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(of, name, refusing)
            yield self.backend()

    @contextlib.contextmanager
    def _with_an_endpoint_that_is_a_broadcast_address(self, address):
        """ipvs takes no address for an endpoint that the node's routes call one of broadcasts."""
        route = f"broadcast {address} dev theirs table local"
        self.ip(f"route add {route}")
        yield
        self.ip(f"route delete {route}")

    @contextlib.contextmanager
    def _until_link_local_is_here(self):
        """ipvs takes an address of link scope for an endpoint only if the node has it itself."""
        yield
        self.ip(f"address add {LINK_LOCAL}/128 dev lo")


def _listed(argument):
    """Return an argument that can be looked at before it is used up."""
    return list(argument) if hasattr(argument, "__next__") else argument


def deletes_a_server(rig):
    """Delete a virtual server with all behind it."""
    (server, _), *_ = rig.served()
    with VirtualServers("meddling") as kernel:
        kernel.delete_servers([server])


def deletes_a_destination(rig):
    """Delete one of several endpoints."""
    server, destinations = rig.served()[-4]
    with VirtualServers("meddling") as kernel:
        kernel.delete_destinations([(server, destinations[0])])


def changes_a_weight(rig):
    """Let an endpoint take more connections than the others."""
    server, destinations = rig.served()[-1]
    with VirtualServers("meddling") as kernel:
        kernel.put_destinations([(server, destinations[0])], weight=7)


def drains_a_server(rig):
    """Let all endpoints of a virtual server take no connections."""
    server, destinations = rig.served()[-2]
    with VirtualServers("meddling") as kernel:
        kernel.drain([(server, each) for each in destinations])


def changes_a_scheduler(rig):
    """Let a virtual server choose in another way."""
    server, _ = rig.served()[-3]
    with VirtualServers("meddling") as kernel:
        kernel.put_servers([(server, Settings("lc"))])


def takes_an_element(rig):
    """Take an element from a set."""
    run(f"ipset del {rig.set_name('cluster-ip')} {vip(rig.family, 1)},tcp:80")


def adds_an_element(rig):
    """Let a set say of a frontend that nobody has that it is refused."""
    run(f"ipset add {rig.set_name('refused')} {vip(rig.family, 99)},tcp:80")


def flushes_mangle(rig):
    """Remove all rules of a table."""
    rig.iptables("-t mangle -F")


def removes_a_jump(rig):
    """Remove a rule of ours from a built-in chain."""
    _policy, *rules = rig.iptables("-t nat -S POSTROUTING").splitlines()
    (number,) = (n for n, rule in enumerate(rules, 1) if "KPROXY-IPVS" in rule)
    rig.iptables(f"-t nat -D POSTROUTING {number}")


def deletes_the_link(rig):
    """Remove the link, and with it all addresses of Services."""
    run(f"ip link delete {LINK}")


MEDDLINGS = (
    deletes_a_server, deletes_a_destination, changes_a_weight, drains_a_server,
    changes_a_scheduler, takes_an_element, adds_an_element, flushes_mangle, removes_a_jump,
    deletes_the_link,
)  # fmt: skip


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture(params=Variant, ids=lambda variant: variant.value)
def variant(request):
    return request.param


@pytest.fixture
def rig(namespace, family, variant):
    rig = IpvsRig(IptablesRig(family, variant), variant)
    yield rig
    rig.close()


class TestIpvs(BackendContract):
    """Virtual servers, with rules in either variant."""


class TestBesideIptables(PairContract):
    """Virtual servers and rules of one variant, as while one data path follows the other."""

    @pytest.fixture(params=[1, -1], ids=["ipvs first", "iptables first"])
    def pair(self, request, namespace, family):
        rules = IptablesRig(family, Variant.NF_TABLES)
        rig = IpvsRig(rules, Variant.NF_TABLES)
        yield [rig, rules][:: request.param]
        rig.close()
