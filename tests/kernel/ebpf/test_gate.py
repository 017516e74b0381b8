"""What packets meet at devices is one for both families, which come, change and go apart."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.ebpf import compiler, places
from backends.ebpf.driver import clsact, loader, tcx
from backends.ebpf.driver.sides import Side
from backends.ebpf.options import SocketHooks
from backends.ebpf.path import EbpfPath
from backends.kernel import traffic_control
from backends.kernel.bpf import bpffs, links, programs
from backends.kernel.bpf.links import Order
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.ports.data_path import BackendError
from tests.support import waiting
from tests.support.contract import Follower, tend
from tests.support.ebpf.devices import (
    TYPES,
    foreign_link,
    index,
    pin_as_former,
)
from tests.support.ebpf.on_node import options
from tests.support.ebpf.place import Place
from tests.support.net.network import Network
from tests.support.net.plan import CLIENT, NODE, POD1, POD2
from tests.support.node.change import PathChange
from tests.support.node.conversations import Conversations

pytestmark = pytest.mark.kernel

V4, V6 = Family
NODE_PORT = f"{NODE}:30020"
DEVICE = "eth0"


class Node:
    """A node whose Service two families have, and agents that follow one another on it."""

    def __init__(self, talk, folder):
        self.place = Place(folder)
        self.shared = places.shared_folder(self.place.bpffs)
        self._talk = talk
        self._opened = []

    def start(self, *families):
        """Start an agent, each family in a thread of its own; return its path and backends."""
        path = EbpfPath(options(self.place, SocketHooks.OFF))
        with ThreadPoolExecutor() as threads:
            backends = dict(zip(families, threads.map(path.backend, families), strict=True))
        self._opened += backends.values()
        for family, backend in backends.items():
            Follower(backend).apply(self.table(family, POD1))
            tend(backend)
        return path, backends

    def table(self, family, pod):
        return PathChange(self._talk, family, None, None).table(pod)

    def open(self, family):
        return self._talk.open(CLIENT, NODE_PORT, Protocol.TCP, family)

    def serves(self, family):
        """Say whether a new connection is served; a node without our programs refuses it."""
        opened = self.open(family)
        partner = opened.partner()
        opened.end()
        return partner == POD1

    def versions(self):
        """Return the names of what is kept of the gate, links apart: not all kernels have them."""
        found = self.shared.iterdir() if self.shared.exists() else ()
        return [each.name for each in found if each.name != "devices"]

    def pins(self):
        """Return all that is kept of the gate."""
        return {each.relative_to(self.shared) for each in self.shared.rglob("*")}

    def entries(self):
        return loader.map_in(self.shared, "entries")

    def stop(self):
        while self._opened:
            self._opened.pop().close()

    def close(self):
        self.stop()
        for family in Family:
            EbpfPath(options(self.place, SocketHooks.OFF)).clean_up(family)
        self.place.close()


@pytest.fixture(scope="module")
def network():
    with Network() as network:
        talk = Conversations(network)
        talk.serve(POD1, POD2)
        yield network, talk
        talk.close()


@pytest.fixture
def node(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    machines, talk = network
    with machines.node.entered():
        node = Node(talk, tmp_path)
        yield node
        node.close()


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """Return what has the gate compiled from a changed text from then on."""

    def change(*replaced):
        sources = tmp_path / "ebpf"
        shutil.copytree(compiler.SOURCES, sources)
        text = (sources / "gate.bpf.c").read_text()
        (sources / "gate.bpf.c").write_text(text.replace(*replaced))
        monkeypatch.setattr(compiler, "SOURCES", sources)

    return change


def test_a_device_has_one_program_a_side_and_each_family_is_served(node):
    _, backends = node.start(V4, V6)
    assert len(met()) == len(set(met())) == len(Side)
    assert node.versions() == ["current"]
    assert all(map(node.serves, Family))
    assert len(dict(node.entries().items())) == 4
    assert all(not backend.disturbed() for backend in backends.values())


def test_who_leaves_first_leaves_the_other_served_and_the_last_one_nothing(node):
    path, _ = node.start(V4, V6)
    opened = node.open(V6)
    assert opened.partner() == POD1
    node.stop()
    path.clean_up(V4)
    assert not node.serves(V4)
    assert node.serves(V6)
    assert opened.partner() == POD1

    path.clean_up(V6)
    assert not node.serves(V6)
    assert not (node.place.bpffs / "kproxy").exists()
    assert met() == []


def test_families_that_leave_at_once_leave_nothing(node):
    path, _ = node.start(V4, V6)
    node.stop()
    with ThreadPoolExecutor() as threads:
        assert min(threads.map(path.clean_up, Family)) > 0
    assert not (node.place.bpffs / "kproxy").exists()


def test_packets_of_a_family_that_is_not_served_go_their_way(node):
    node.start(V4)
    assert node.serves(V4)
    assert not node.serves(V6)
    node.start(V6)
    assert all(map(node.serves, Family))


@pytest.mark.parametrize("what", ["entries", "programs", "everything of the gate"])
def test_what_others_take_away_is_put_back(node, what):
    _, backends = node.start(V4, V6)
    before = node.pins()
    if what == "entries":
        with node.entries() as entries:
            assert [entries.delete(bytes([number, 0, 0, 0])) for number in range(4)] == [True] * 4
        assert not any(map(node.serves, Family))
    elif what == "programs":
        with node.entries() as entries, programs.load(nothing(), {}) as other:
            for number in range(4):
                entries.update(bytes([number, 0, 0, 0]), other.fileno().to_bytes(4, "little"))
        assert not any(map(node.serves, Family))
    else:
        bpffs.remove(node.shared)

    def repaired():
        for backend in backends.values():
            tend(backend)
        return node.pins() == before and all(map(node.serves, Family))

    waiting.until(repaired, within_s=waiting.LONGEST_S, what="it is repaired")
    node.stop()
    assert all(map(node.serves, Family))


def nothing():
    code = bytes.fromhex("b7000000ffffffff9500000000000000")
    return programs.Code("nothing", programs.ProgramType.TC, 0, code, {})


def test_a_newer_gate_leads_to_families_that_have_not_been_started_yet(node, gate):
    node.start(V4, V6)
    opened = [node.open(family) for family in Family]
    assert {each.partner() for each in opened} == {POD1}
    before = met()
    node.stop()

    gate("enum entry", "/* newer */ enum entry")
    _, backends = node.start(V4)
    assert not set(before) & set(met())
    assert len(met()) == len(Side)
    assert all(map(node.serves, Family))
    assert {each.partner() for each in opened} == {POD1}

    def retired():
        tend(backends[V4])
        return node.versions() == ["current"]

    waiting.until(retired, within_s=waiting.LONGEST_S, what="the former gate is removed")


def met():
    """Return the programs at a device, by whichever way they are attached."""
    found = [traffic_control.filters(index(DEVICE), clsact.PARENTS[side]) for side in Side]
    if tcx.supported():
        found += [links.attached(index(DEVICE), TYPES[side]).programs for side in Side]
    return [each.program for each in itertools.chain.from_iterable(found)]


def test_a_gate_that_fails_its_trial_is_attached_to_nothing(node, gate):
    gate("return TC_ACT_UNSPEC;", "return TC_ACT_SHOT;")
    with pytest.raises(BackendError, match="trying the program ingress: a packet of no Service"):
        node.start(V4)
    assert met() == []


def test_links_that_a_former_kproxy_had_for_each_family_are_detached(node):
    if not tcx.supported():
        return
    with programs.load(nothing(), {}) as former:
        for side in Side:
            pin_as_former(
                foreign_link(former, DEVICE, side, Order.BEFORE), node.place.bpffs, V4, side
            )
    node.start(V4)
    assert len(met()) == len(Side)
    assert not (places.family_folder(node.place.bpffs, V4) / "devices").exists()
    assert node.serves(V4)
