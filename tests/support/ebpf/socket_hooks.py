"""A test network whose clients are in a control group that socket hooks are attached to.

Nothing else of the data path is there: what hooks leave to tc goes on untouched.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from backends.ebpf.compiler import SOURCES, load_unit
from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import DeviceFlag, Host, HostFlag, SocketHooks
from backends.ebpf.driver.namespaces import Namespaces
from backends.ebpf.driver.pods import PodFlag, Pods
from backends.ebpf.driver.sockets import TRANSLATED_SOCKETS, TranslatedSockets
from backends.ebpf.render.layout import TableMap, packed
from backends.ebpf.render.renderer import Renderer
from backends.kernel import namespaces
from backends.kernel.bpf import links
from backends.kernel.bpf.maps import Map
from backends.kernel.bpf.programs import AttachType
from backends.kernel.bpf.ring import RingBuffer
from kproxy.core.addresses import Family, family_of
from kproxy.core.objects import Protocol
from kproxy.core.table import ForwardingTable, FromInterface, FromInterfacePrefix, LocalPods
from tests.support.ebpf.place import cgroup_root, joined
from tests.support.ebpf.sources import Loaded
from tests.support.net.namespace import Namespace
from tests.support.net.network import Network

SIZES = dict.fromkeys((each.map_name for each in TableMap), 1 << 20)
_NO_FLAGS = HostFlag(0)
_PODS = ("pod1", "pod2", "pod3")
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class Reasons:
    """How often the programs of a family went each way out, by the names of kproxy/reason.h."""

    def __init__(self, counts: Map) -> None:
        self._counts = counts
        header = (SOURCES / "include/kproxy/reason.h").read_text()
        self._names = re.findall(r"^\t([A-Z_]+),", header, re.MULTILINE)

    def __getitem__(self, name: str) -> int:
        """Return how often so far."""
        values = self._counts.lookup(device_layout.number(self._names.index(name)))
        return sum(memoryview(values).cast("Q"))


class HookedFamily:
    """The hooks of one family, and the maps that they read."""

    def __init__(self, family: Family, cache: Path, cgroup: Path) -> None:
        self.family = family
        unit = load_unit(SOURCES / "sock.bpf.c", family, cache=cache)
        self._held = Loaded(unit)
        self.maps = self._held.maps
        self.reasons = Reasons(self.maps["reasons"])
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name, code in unit.programs.items():
                program = self._held.programs[name]
                attach_type = AttachType(code.attach_type)
                link = links.attach_to_cgroup(program, descriptor, attach_type)
                self._held.enter_context(link)
        finally:
            os.close(descriptor)

    def program(self, table: ForwardingTable) -> None:
        """Hold this table and no other."""
        rendered = Renderer(self.family, SIZES).update(table.everything())
        for each in TableMap:
            held = self.maps[each.map_name]
            wanted = {
                key[1:]: value
                for key, value in rendered.items()
                if isinstance(key, bytes) and key[:1] == each.prefix and value is not None
            }
            if each is not TableMap.TABLE_RULES:
                held.delete_many([key for key, _ in held.items() if key not in wanted])
            held.update_many(wanted)

    def close(self) -> None:
        """Take the hooks away."""
        self._held.close()


class HookedNetwork:
    """The test network with hooks; in each pod's namespace is a process, as in a real pod."""

    def __init__(self, cache: Path) -> None:
        with ExitStack() as stack:
            self.network = stack.enter_context(Network())
            self.cgroup = cgroup_root() / f"kproxy-test-{uuid.uuid4().hex[:12]}"
            self.cgroup.mkdir()
            stack.callback(self.cgroup.rmdir)
            self.families = {}
            for family in Family:
                self.families[family] = HookedFamily(family, cache, self.cgroup)
                stack.callback(self.families[family].close)
            with self.network.node.entered():
                self.cookie = namespaces.cookie()
                self.devices = _devices()
                self.namespaces = Namespaces()
            for family in Family:
                self._describe_node(family)
                self.set_hooks(family)
            for name in _PODS:
                stack.enter_context(_process_in(self.network.namespaces[name]))
            self._stack = stack.pop_all()

    def set_hooks(
        self,
        family: Family,
        hooks: SocketHooks = SocketHooks.ALL,
        flags: HostFlag = _NO_FLAGS,
    ) -> None:
        """Write the settings of the node."""
        settings = Host(
            netns_cookie=self.cookie,
            flags=flags,
            mark=0,
            local_ports=(32768, 60999),
            node_ports=(30000, 32767),
            socket_hooks=hooks,
        )
        value = device_layout.host(settings)
        self.families[family].maps["host"].update(device_layout.ONLY, value)

    def tell_pods(self, family: Family, local_pods: LocalPods) -> None:
        """Flag the devices by which local pods are recognised, and the ports of such a bridge."""
        held = self.families[family].maps["devices"]
        for name, (index, master) in self.devices.items():
            is_pod = _is_pod(name, local_pods) or (master != "" and _is_pod(master, local_pods))
            flags = DeviceFlag.POD if is_pod else DeviceFlag(0)
            value = device_layout.device(flags, 0, bytes(6))
            held.update(device_layout.number(index), value)

    def pods(self, family: Family, clock=time.monotonic, seen: Namespaces | None = None) -> Pods:
        """Return what finds out about namespaces, as an agent on the node has it."""
        held = self.families[family].maps
        with self.network.node.entered():
            return Pods(
                family,
                pods=held["pods"],
                reports=RingBuffer(held["pod_reports"]),
                devices=held["devices"],
                clock=clock,
                seen=seen or self.namespaces,
            )

    def know_pods(self, family: Family, pods: Pods, service: str) -> None:
        """Have all pods reported, by a call to a clusterIP of theirs, and looked at."""
        for name in _PODS:
            with self.client(name), socket.socket(_AF[family], socket.SOCK_DGRAM) as caller:
                caller.connect((service, 80))
        while pods.tend(1.0):
            pass

    def mesh_pods(self, family: Family) -> None:
        """Have the hooks take every pod that they know for one with nat rules of its own."""
        held = self.families[family].maps["pods"]
        width = family.bits // 8
        for key, value in held.items():
            flags = int.from_bytes(value[width:], sys.byteorder) | PodFlag.MESHED
            held.update(key, value[:width] + flags.to_bytes(4, sys.byteorder))

    def sockets(
        self,
        family: Family,
        protocol: Protocol,
        clock=time.monotonic,
        seen: Namespaces | None = None,
    ) -> TranslatedSockets:
        """Return what knows the connected sockets, as an agent on the node has it."""
        return TranslatedSockets(
            family,
            protocol,
            sockets=self.families[family].maps[TRANSLATED_SOCKETS[protocol]],
            clock=clock,
            seen=seen or self.namespaces,
        )

    def joined(self) -> AbstractContextManager[None]:
        """Have sockets that this process makes in the body meet the hooks."""
        return joined(self.cgroup)

    @contextmanager
    def client(self, name: str) -> Iterator[None]:
        """Have sockets that are made in the body be those of a machine of the network."""
        with self.network.namespaces[name].entered(), self.joined():
            yield

    def close(self) -> None:
        """Take everything down."""
        self._stack.close()

    def _describe_node(self, family: Family) -> None:
        held = self.families[family].maps
        for address in self.network.local_addresses:
            if family_of(address) is family:
                held["own_addresses"].update(packed(address), device_layout.number(1))
        if family is Family.IPV4:
            key = device_layout.network_key(8, packed("127.0.0.0"))
        else:
            key = device_layout.network_key(128, packed("::1"))
        held["own_networks"].update(key, device_layout.OWN)


def forget_pods(hooked: HookedFamily) -> None:
    """Let the hooks know no namespace but the node's."""
    held = hooked.maps["pods"]
    held.delete_many([key for key, _ in held.items()])


@contextmanager
def _process_in(namespace: Namespace) -> Iterator[None]:
    with namespace.entered():
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()


def _devices() -> dict[str, tuple[int, str]]:
    """Return the devices of this namespace: number, and the name of the bridge around it."""
    with IPRoute() as netlink:
        found = list(netlink.get_links())
    names = {each["index"]: each.get("ifname") for each in found}
    return {
        each.get("ifname"): (each["index"], names.get(each.get("master"), "")) for each in found
    }


def _is_pod(name: str, local_pods: LocalPods) -> bool:
    match local_pods:
        case FromInterface(exact):
            return name == exact
        case FromInterfacePrefix(prefix):
            return name.startswith(prefix)
        case _:
            return False
