"""The ebpf data path keeps the contract of all data paths, on a real kernel."""

from __future__ import annotations

import contextlib
import errno
import json

import pytest

from backends.ebpf import places
from backends.ebpf.driver import loader
from backends.ebpf.options import SocketHooks
from backends.ebpf.path import EbpfPath
from backends.ebpf.render.layout import TableMap
from backends.kernel.bpf.maps import BatchRefusal, Map
from backends.kernel.bpf.syscall import KernelRefusal
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.kernel.iptables.test_contract import IptablesRig
from tests.support.commands import output_of
from tests.support.contract import BackendContract, Follower, PairContract
from tests.support.ebpf.on_node import options
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace
from tests.support.tables import service_port, table

pytestmark = pytest.mark.kernel


class EbpfRig:
    """A namespace in which others have rules, and a program of theirs at a device."""

    def __init__(self, family, place):
        self.family = family
        self._place = place
        self._closing = contextlib.ExitStack()
        run("ip link set lo up")
        run("ip link add eth0 type veth peer name eth1")
        run("ip link set eth0 up")
        run("iptables-nft -N OTHERS")
        run("iptables-nft -A FORWARD -j OTHERS")
        run("sysctl -qw net.ipv4.ip_forward=1")
        for each, backend in self.both().items():
            with contextlib.suppress(FileNotFoundError):
                places.in_force(place.bpffs, each).rmdir()  # it was in another namespace
            Follower(backend).apply(table(each))

    def both(self):
        path = EbpfPath(options(self._place, SocketHooks.ALL))
        backends = {family: path.backend(family) for family in Family}
        for backend in backends.values():
            self._closing.callback(backend.close)
        return backends

    def backend(self):
        backend = EbpfPath(options(self._place, SocketHooks.ALL)).backend(self.family)
        self._closing.callback(backend.close)
        return backend

    def foreign(self):
        rules = run("iptables-nft-save -t filter").splitlines()
        others = [line for line in rules if line[0] == "-" and "kproxy" not in line.lower()]
        links = json.loads(run("ip -json link show"))
        # Without their state, which follows later.
        return tuple(others), tuple((each["ifname"], each["qdisc"]) for each in links)

    def meddle(self):
        """Take an endpoint list away, and put somebody's frontend beside ours."""
        with self._map(TableMap.CHUNKS) as chunks:
            assert chunks.delete(next(chunks.keys()))
        with self._map(TableMap.FRONTENDS) as frontends:
            key, value = next(frontends.items())
            frontends.update(bytes([key[0] ^ 0x80]) + key[1:], value)

    def refusals(self):
        for write in (1, 2, 3):
            yield self._refusing(write)

    def without_room(self):
        return service_port(self.family, 60, [7, 8], affinity_s=60), self._without_members()

    def close(self):
        self._closing.close()

    def _map(self, of):
        return loader.published_map(self._place.bpffs, self.family, of.map_name)

    @contextlib.contextmanager
    def _refusing(self, number):
        """The kernel has no memory for a write (the first, the second, …) of each commit."""
        count = 0

        def update_many(table, entries):
            nonlocal count
            count += 1
            if count == number:
                raise KernelRefusal("the test refuses", errno.EIO)
            genuine(table, entries)

        genuine = Map.update_many
        with pytest.MonkeyPatch.context() as patch:
            backend = self.backend()
            patch.setattr(Map, "update_many", update_many)
            yield backend

    @contextlib.contextmanager
    def _without_members(self):
        """The map of who has affinity takes no entry of the lists with two endpoints, 7 and 8."""
        ours = {b"\x07", b"\x08"}

        def update_many(table, entries):
            if table.name == "members" and any(key[8 + width - 1 : 8 + width] in ours
                                               for key in entries):  # fmt: skip
                raise BatchRefusal("writing members", errno.E2BIG, 0)
            genuine(table, entries)

        def update(table, key, value, *how):
            if table.name == "members" and key[8 + width - 1 : 8 + width] in ours:
                raise KernelRefusal("writing members", errno.E2BIG)
            genuine_one(table, key, value, *how)

        width = self.family.bits // 8
        genuine, genuine_one = Map.update_many, Map.update
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Map, "update_many", update_many)
            patch.setattr(Map, "update", update)
            yield


def run(command):
    return output_of(*command.split(), timeout_s=30)


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the programs stay from test to test; they are tried out once, which takes time."""
    place = Place(tmp_path_factory.mktemp("place"))
    yield place
    place.close()


@pytest.fixture
def rig(place, family):
    namespace = Namespace("node")
    with namespace.entered():
        rig = EbpfRig(family, place)
        yield rig
        rig.close()
    namespace.close()


class TestEbpf(BackendContract):
    """Programs alone."""


class TestBesideIptables(PairContract):
    """Programs and rules, as while one follows the other."""

    @pytest.fixture(params=[(Variant.NF_TABLES, 1), (Variant.LEGACY, -1)], ids=["nft", "legacy"])
    def pair(self, request, rig, tmp_path, monkeypatch):
        variant, order = request.param
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        return [rig, IptablesRig(rig.family, variant)][::order]
