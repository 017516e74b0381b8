"""From iptables to eBPF and from eBPF to iptables, by the contract of every change of data path."""

from __future__ import annotations

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.hand_over import HandOver
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.options import SocketHooks
from backends.ebpf.path import EbpfPath
from backends.ebpf.withdrawal import FormerPrograms
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.change_contract import ChangeContract
from tests.support.contract import Follower
from tests.support.ebpf.on_node import options, pins, table_entries
from tests.support.ebpf.place import Place
from tests.support.iptables.applied import run, saved
from tests.support.net.network import Network
from tests.support.net.plan import CLIENT, POD1, POD2
from tests.support.node.change import PathChange, Rules
from tests.support.node.conversations import Conversations
from tests.support.node.web import FRONTENDS

pytestmark = pytest.mark.kernel


def rules(family, place):
    del place
    return Rules(family, Variant.NF_TABLES)


class Programs:
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
            *pins(self._place.bpffs),
            *table_entries(self._place.bpffs, self._family),
            *(line for line in rules if "kproxy ebpf" in line),
        ]

    def forget(self):
        """Let them forget the flows that they translate."""
        flows = loader.published_map(self._place.bpffs, self._family, "flows")
        if flows is not None:
            with flows:
                flows.delete_many(list(flows.keys()))


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


class TestChanges(ChangeContract):
    @pytest.fixture(params=[(rules, Programs), (Programs, rules)], ids=["into", "out of"])
    def change(self, request, family, tmp_path, monkeypatch):
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        place = Place(tmp_path)
        with Network() as network:
            talk = Conversations(network)
            talk.serve(POD1, POD2)
            with network.node.entered():
                change = PathChange(talk, family, *(each(family, place) for each in request.param))
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
            change = PathChange(talk, family, rules(family, place), Programs(family, place))
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


def test_whose_flow_the_kernel_forgot_meets_programs_with_the_next_datagram(into):
    flow, _ = into
    assert flow.partner() == POD1

    run("conntrack -F")

    assert flow.partner() == POD2
