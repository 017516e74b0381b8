"""From iptables to eBPF and from eBPF to iptables, by the contract of every change of data path."""

from __future__ import annotations

import itertools

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.hand_over import HandOver
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.options import SocketHooks
from backends.ebpf.path import EbpfPath
from backends.ebpf.withdrawal import FormerPrograms
from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.iptables.withdrawal import FormerVariant
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind, Protocol
from kproxy.core.parse import from_builtins
from kproxy.core.settings import Settings
from kproxy.core.store import Replaced
from tests.support.change_contract import ChangeContract
from tests.support.contract import Follower
from tests.support.ebpf.on_node import options, pins, table_entries
from tests.support.ebpf.place import Place
from tests.support.iptables.applied import run, saved
from tests.support.net.network import Network
from tests.support.net.plan import CLIENT, CLUSTER_CIDR, POD1, POD2, in_family
from tests.support.node.conversations import Conversations
from tests.support.node.web import FRONTENDS, SOURCES, web

pytestmark = pytest.mark.kernel


class Iptables:
    """Rules of iptables on a node."""

    def __init__(self, family, place):
        del place
        self._family = family

    def backend(self):
        return IptablesBackend(
            family=self._family,
            variant=Variant.NF_TABLES,
            renderer=Renderer(self._family, Options()),
            transactions=Transactions(),
        )

    def former(self):
        return FormerVariant(self._family, Variant.NF_TABLES)

    def left(self):
        lines = saved(self._family, Variant.NF_TABLES).splitlines()
        return [line.partition("] ")[2] or line for line in lines if "KPROXY-" in line]


class Ebpf:
    """Programs on a node."""

    def __init__(self, family, place):
        self._family = family
        self._place = place

    def backend(self):
        return EbpfPath(options(self._place, SocketHooks.ALL)).backend(self._family)

    def former(self):
        return FormerPrograms(self._family, self._place.bpffs)

    def left(self):
        rules = saved(self._family, Variant.NF_TABLES).splitlines()
        return [
            *pins(self._place.bpffs, self._family),
            *table_entries(self._place.bpffs, self._family),
            *(line for line in rules if "kproxy ebpf" in line),
        ]


class PathChange:
    """A node on which one data path follows another."""

    def __init__(self, network, talk, place, family, first, second):
        self.family = family
        self._network = network
        self._talk = talk
        self._place = place
        self._first = first(family, place)
        self._second = second(family, place)
        self._opened = []

    def first(self):
        self._opened.append(self._first.backend())
        return self._opened[-1]

    def second(self):
        self._opened.append(self._second.backend())
        return self._opened[-1]

    def former(self):
        return self._first.former()

    def left(self):
        return self._first.left()

    def table(self, *pods):
        cidr = canonical_network(in_family(CLUSTER_CIDR, self.family))
        compiler = Compiler(Settings("node", cluster_cidrs=(cidr,)), [self.family])
        service, *slices = [from_builtins(each) for each in web(*pods)]
        compiler.apply(
            [Replaced(Kind.SERVICE, (service,)), Replaced(Kind.ENDPOINT_SLICE, tuple(slices))]
        )
        return compiler.tables[self.family]

    def pods(self):
        return POD1, POD2

    def converse(self):
        protocols = (Protocol.TCP, Protocol.UDP)
        return [
            self._talk.open(source, frontend, protocol, self.family)
            for source, frontend, protocol in itertools.product(SOURCES, FRONTENDS, protocols)
        ]

    def close(self):
        for each in self._opened:
            each.close()

    def forget(self):
        run("conntrack -F")
        flows = loader.published_map(self._place.bpffs, self.family, "flows")
        if flows is not None:
            with flows:
                flows.delete_many(list(flows.keys()))


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


class TestChanges(ChangeContract):
    @pytest.fixture(params=[(Iptables, Ebpf), (Ebpf, Iptables)], ids=["into", "out of"])
    def change(self, request, family, tmp_path, monkeypatch):
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        place = Place(tmp_path)
        with Network() as network:
            talk = Conversations(network)
            talk.serve(POD1, POD2)
            with network.node.entered():
                change = PathChange(network, talk, place, family, *request.param)
                yield change
                change.close()
            talk.close()
        place.close()


@pytest.fixture
def into(family, tmp_path, monkeypatch):
    """A node on which eBPF has followed iptables, under a UDP flow that iptables translates."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    place = Place(tmp_path)
    with Network() as network:
        talk = Conversations(network)
        talk.serve(POD1, POD2)
        with network.node.entered():
            change = PathChange(network, talk, place, family, Iptables, Ebpf)
            Follower(change.first()).apply(change.table(POD1))
            flow = talk.open(CLIENT, FRONTENDS[0], Protocol.UDP, family)
            assert flow.partner() == POD1
            Follower(change.second()).apply(change.table(POD2))
            assert change.former().withdraw() is False
            yield flow, place
            change.close()
        talk.close()
    place.close()


def test_a_flow_is_left_alone_as_long_as_the_kernel_tracks_it_and_no_longer(into, family):
    flow, place = into
    now = 1000.0
    names = ("host", "flows")
    maps = {name: loader.published_map(place.bpffs, family, name) for name in names}
    flows = Flows(family, maps["flows"])
    hand_over = HandOver(family, HostSettings(maps["host"]), flows, lambda: now)
    hand_over.tend()
    assert flow.partner() == POD1
    assert len(list(flows.left_alone())) == 1

    run("conntrack -F")
    now += 10
    hand_over.tend()
    assert list(flows.left_alone()) == []
    assert flow.partner() == POD2
    now += 10
    hand_over.tend()
    assert not hand_over.lasts
    for each in maps.values():
        each.close()
