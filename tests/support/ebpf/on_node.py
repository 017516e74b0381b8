"""The ebpf data path on a node of namespaces, with a BPF file system and a cgroup of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from backends.ebpf import places
from backends.ebpf.driver import loader
from backends.ebpf.driver.sides import Side
from backends.ebpf.options import EbpfOptions, SocketHooks
from backends.ebpf.path import EbpfPath
from backends.ebpf.render.layout import TableMap
from backends.kernel import traffic_control
from backends.kernel.bpf import links, maps, objects
from backends.kernel.bpf.maps import Map, MapType
from backends.kernel.bpf.programs import AttachType
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Backend
from tests.support.contract import tend
from tests.support.ebpf.devices import PARENTS, TYPES
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace
from tests.support.net.observed import Answered, Observed
from tests.support.net.plan import in_family
from tests.support.net.responders import FAMILIES
from tests.support.packets.asking import CONTROL
from tests.support.packets.table import Flow, ForwardTo

MARK_BIT = 14
_OF_SOCKETS = [each for each in AttachType if each not in TYPES.values()]


def options(place: Place, hooks: SocketHooks) -> EbpfOptions:
    """Return options by which everything is in a test's own places, and small."""
    return EbpfOptions(
        bpffs=place.bpffs,
        cache=bytecode_folder(),
        cgroup=place.cgroup,
        socket_hooks=hooks,
        service_entries=16384,
        flow_entries=16384,
        affinity_entries=1024,
        masquerade_bit=MARK_BIT,
        take_over=False,
    )


class EbpfNode:
    """The data path of one node; clients speak from its cgroup."""

    def __init__(self, hooks: SocketHooks) -> None:
        self._ends = contextlib.ExitStack()
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        self._place = Place(folder)
        self._ends.callback(self._place.close)
        self._hooks = hooks
        self._path = EbpfPath(options(self._place, hooks))
        self._backends: dict[Family, Backend] = {}
        self._known: set[Family] = set()

    def backend(self, family: Family) -> Backend:
        """Return a new backend."""
        self._backends[family] = self._path.backend(family)
        return self._backends[family]

    def state(self, family: Family) -> list[str]:
        """Return the entries that the table's maps have, as their pins show them."""
        return table_entries(self._place.bpffs, family)

    @contextlib.contextmanager
    def speaking(self, machines: Mapping[str, Namespace]) -> Iterator[None]:
        """Let what begins now be in the cgroup, and every machine be known there."""
        if self._hooks is SocketHooks.OFF:
            yield
            return
        if not self._known:
            for machine in machines.values():
                self._ends.enter_context(inhabited(machine))
        with self._place.joined():
            for family in self._backends.keys() - self._known:
                self._introduce(machines, family)
            yield

    def close(self) -> None:
        """Take the places away; programs at devices go with their namespaces."""
        for family in Family:
            self._path.clean_up(family)
        self._ends.close()

    @staticmethod
    def differs(hooks: SocketHooks, flow: Flow, seen: Observed) -> bool:
        """Say whether an endpoint chose itself in a socket hook: it sees its own address then."""
        if hooks is SocketHooks.OFF or not isinstance(seen, Answered):
            return False
        by, source = (each.rpartition(":")[0].strip("[]") for each in (seen.by, seen.source))
        return isinstance(flow.expected, ForwardTo) and flow.source == by == source

    def _introduce(self, machines: Mapping[str, Namespace], family: Family) -> None:
        """Let every machine call a Service, and the data path look who that was."""
        address, _, port = CONTROL.rpartition(":")
        for machine in machines.values():
            with machine.entered(), socket.socket(FAMILIES[family]) as client:
                client.setblocking(False)
                client.connect_ex((in_family(address, family), int(port)))
        with machines["node"].entered():
            tend(self._backends[family])
        self._known.add(family)


def table_entries(bpffs: Path, family: Family) -> list[str]:
    """Return all entries of the maps that follow from the table alone, sorted."""
    found = []
    for each in TableMap:
        table = loader.published_map(bpffs, family, each.map_name)
        if table is not None:
            with table:
                entries = (f"{key.hex()} {value.hex()}" for key, value in table.items())
                found += [f"{each.map_name} {entry}" for entry in entries]
    return sorted(found)


def objects_on_node(place: Place) -> list[str]:
    """Return what is pinned, attached and written there; the node's namespace is entered.

    Attached programs are all that there are, whosever, but for filters.
    """
    entries = (each for family in Family for each in table_entries(place.bpffs, family))
    found = {*place.bpffs.glob("kproxy"), *place.bpffs.glob("kproxy/**/*")}
    attached = [*_attached_to_devices(), *_attached_to_group(place)]
    return sorted([*entries, *map(str, found), *_stages(place), *attached])


def pins_of(place: Place, kind: str) -> Iterator[Path]:
    """Yield the pins of the data path of one kind: "link", "map" or "prog"."""
    for path in sorted(place.bpffs.glob("kproxy/**/*")):
        if path.is_file():
            with objects.get(path) as found:
                if os.readlink(f"/proc/self/fd/{found.fileno()}").endswith(kind):
                    yield path


def stages(place: Place) -> Iterator[tuple[Path, Map]]:
    """Yield the arrays through which programs call others, with their pins, open."""
    for path in pins_of(place, "map"):
        with maps.pinned(path) as found:
            if found.shape.type == MapType.PROG_ARRAY:
                yield path, found


def _stages(place: Place) -> Iterator[str]:
    for path, each in stages(place):
        for key, program in each.items():
            yield f"{path} {key.hex()}: program {program.hex()}"


def _attached_to_devices() -> Iterator[str]:
    for (number, device), side in itertools.product(socket.if_nameindex(), Side):
        with contextlib.suppress(KernelRefusal):  # a kernel without tcx
            for each in links.attached(number, TYPES[side]).programs:
                yield f"{device} {side.value}: program {each.program}"
        for found in traffic_control.filters(number, PARENTS[side]):
            if found.name.startswith("kproxy"):
                yield f"{device} {side.value}: filter {found}"


def _attached_to_group(place: Place) -> Iterator[str]:
    group = os.open(place.cgroup, os.O_RDONLY)
    try:
        for each in _OF_SOCKETS:
            for program, _ in links.attached(group, each).programs:
                yield f"{each.name}: program {program}"
    finally:
        os.close(group)


def pins(bpffs: Path) -> list[str]:
    """Return the names of all that is pinned, folders too, while an agent may remove some."""
    ours = places.shared_folder(bpffs).parent
    return sorted(
        os.path.relpath(os.path.join(folder, name), ours)
        for folder, folders, files in os.walk(ours)
        for name in (*folders, *files)
    )


@contextlib.contextmanager
def inhabited(machine: Namespace) -> Iterator[None]:
    """Have a process of its own in a machine: by it a namespace is found and looked at."""
    with machine.entered():
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "infinity"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
