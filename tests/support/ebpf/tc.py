"""The tc programs on the devices of a test node, over maps of their own that a test writes itself.

What they read is laid out in ebpf/include/kproxy/service.h and device.h.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from backends.ebpf.compiler import SOURCES, load_unit
from backends.ebpf.driver import gate
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.sides import Side
from backends.ebpf.render.crc32c import shift_tables
from backends.ebpf.unit import Unit
from backends.kernel.bpf.maps import Map, possible_cpus
from backends.kernel.bpf.programs import Program
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.ebpf.sources import Loaded
from tests.support.net import plan
from tests.support.net.namespace import Namespace
from tests.support.net.plan import in_family

SOURCE = SOURCES / "tc.bpf.c"
_GATE = SOURCES / "gate.bpf.c"

OUTSIDE, POD, NODE = range(3)  # enum origin
FORWARD, REJECT, DROP = range(3)  # enum use

HAND_OVER, WITHDRAWN = 1, 2  # enum host_flags
LOCAL_PORTS = range(32768, 61000)
NODE_PORTS = range(30000, 32768)

_NUMBER = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_INGRESS, _EGRESS = "ffff:fff2", "ffff:fff3"
_ETHERNET, _LOOPBACK = 2, 8  # enum device_flags
_ROUND = 65536  # the word behind those of clients
_REASONS = SOURCES / "include" / "kproxy" / "reason.h"

Where = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Use:
    """What connections of one origin get."""

    use: int = FORWARD
    masquerade: bool = False


def unit(family: Family, bytecode: Path) -> Unit:
    """Return the programs of a family."""
    return load_unit(SOURCE, family, cache=bytecode)


class Tc:
    """The programs of one family, with a gate of their own.

    Every address is given as IPv4 (tests/support/net/plan.py).
    """

    def __init__(self, family: Family, unit: Unit) -> None:
        self.family = family
        self._stack = ExitStack()
        loaded = self._stack.enter_context(Loaded(unit))
        self.maps: dict[str, Map] = loaded.maps
        self.programs: dict[str, Program] = loaded.programs
        for number, name in enumerate(unit.stages):
            self.maps["stages"].update(_number(number), _number(self.programs[name].fileno()))
        entrance = load_unit(_GATE, family, cache=bytecode_folder())
        held = self._stack.enter_context(Loaded(entrance))
        gate.lead_to(held.maps, family, loaded.programs)
        self._gate = gate.programs_of(held)
        self.maps["crc_shifts"].update_many(shift_tables())
        self.settings()
        network = self.packed(plan.POD_CIDR.partition("/")[0])
        mask = b"\xff" * (3 if family is Family.IPV4 else 8)
        rules = network + mask.ljust(len(network), b"\0") + bytes([1]) + bytes(7)
        self.maps["table_rules"].update(_number(0), rules)
        self.maps["node_port_networks"].update(_number(0) + bytes(len(network)), b"\1")
        loopback, bits = (b"\x7f\0\0\0", 8) if family is Family.IPV4 else (bytes(15) + b"\1", 128)
        self.maps["own_networks"].update(_number(bits) + loopback, b"\1")
        self.claims = Claims(family, self.maps["claims"])
        self.claims.add(self.packed(a) for a in plan.NODE_ADDRESSES if a != plan.LOOPBACK)
        self.claims.complete()
        self._forget_clients()
        for address in plan.NODE_ADDRESSES:
            self.maps["own_addresses"].update(self.packed(address), _number(1))

    def packed(self, address: str) -> bytes:
        """Return an address as programs see it."""
        return socket.inet_pton(_AF[self.family], in_family(address, self.family))

    def settings(self, *, flags: int = 0, mark: int = 0, local_ports: range = LOCAL_PORTS) -> None:
        """Write what the programs are told of the host (struct host)."""
        ranges = [end for each in (local_ports, NODE_PORTS) for end in (each[0], each[-1])]
        value = struct.pack("=QII4HB7x", 0, flags, mark, *ranges, 0)
        self.maps["host"].update(_number(0), value)

    def frontend(
        self,
        where: Where | int,
        protocol: Protocol,
        targets: Sequence[Where],
        uses: Sequence[Use] = (Use(), Use(), Use()),
        *,
        affinity_s: int = 0,
        service: int = 1,
    ) -> None:
        """Enter a frontend, a NodePort where it is a number, with what each origin gets there."""
        address, port = ("0.0.0.0", where) if isinstance(where, int) else where
        key = self.packed(address) + struct.pack("!HBx", port, _NUMBER[protocol])
        digest = hash((tuple(targets), protocol)) & (1 << 63) - 1
        self.claims.add([self.packed(address)])
        self.claims.add_endpoints(self.packed(target) for target, _ in targets)
        entries = [self.packed(a) + struct.pack("!Hxx", p) for a, p in targets]
        size = len(self.packed(plan.NODE)) + 4
        for number, at in enumerate(range(0, len(entries), 16)):
            chunk = b"".join(entries[at : at + 16]).ljust(16 * size, b"\0")
            self.maps["chunks"].update(struct.pack("=QII", digest, number, 0), chunk)
        for position, (target, at) in enumerate(targets):
            member = struct.pack("=Q", digest) + self.packed(target) + struct.pack("!H", at)
            self.maps["members"].update(member + bytes(-len(member) % 8), _number(position))
        decisions = [
            struct.pack("=HHBBxx", 0, len(targets), use.use, use.masquerade) for use in uses
        ]
        value = struct.pack("=QQ", service, digest) + b"".join(decisions)
        self.maps["frontends"].update(key, value + struct.pack("=IBBxx", affinity_s, 0, 0))

    def cluster_ip(self, address: str) -> None:
        """Refuse what comes to a clusterIP and meets none of its frontends."""
        decisions = struct.pack("=HHBBxx", 0, 0, REJECT, False) * 3
        value = struct.pack("=QQ", 0, 0) + decisions + struct.pack("=IBBxx", 0, 0, 0)
        self.claims.add([self.packed(address)])
        self.maps["frontends"].update(self.packed(address) + bytes(4), value)

    def attach(self, node: Namespace, *, priority: int, only: str | None = None) -> None:
        """Attach the programs to the devices of a node, and tell them of each."""
        with node.entered(), IPRoute() as netlink:
            for link in netlink.get_links():
                if only in (None, link.get_attr("IFLA_IFNAME")):
                    self._know(link, netlink)
                    self._attach(netlink, link["index"], priority)
        if self.family is Family.IPV4:
            for setting in ("accept_local", "route_localnet"):
                node.sysctl(f"net/ipv4/conf/lo/{setting}", 1)

    def _attach(self, netlink: IPRoute, index: int, priority: int) -> None:
        _add_clsact(netlink, index)
        for side, parent in ((Side.INGRESS, _INGRESS), (Side.EGRESS, _EGRESS)):
            netlink.tc(
                "add-filter",
                "bpf",
                index,
                fd=self._gate.at(side).fileno(),
                name=f"kproxy_{side.value}",
                parent=parent,
                classid=1,
                direct_action=True,
                prio=priority,
            )

    def _know(self, link, netlink: IPRoute) -> None:
        name, index = link.get_attr("IFLA_IFNAME"), link["index"]
        mac = bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "00" * 6).replace(":", ""))
        flags = _LOOPBACK if name == "lo" else _ETHERNET if any(mac) else 0
        bridge = link.get_attr("IFLA_MASTER") or 0
        self.maps["devices"].update(_number(index), struct.pack("=II6s2x", flags, bridge, mac))
        family = _AF[self.family]
        found = [a.get_attr("IFA_ADDRESS") for a in netlink.get_addr(index=index, family=family)]
        own = [socket.inet_pton(family, a) for a in found if a not in ("127.0.0.1", "::1")]
        if name == "lo":
            own = [self.packed(plan.NODE_VIP)]
        if own:
            key = struct.pack("=II", 32, index) + bytes(len(own[0]))
            self.maps["masquerade_addresses"].update(key, own[0])

    def counts(self) -> dict[str, int]:
        """Return how often programs ended for each reason, where they did."""
        counted = {}
        for number, name in enumerate(reasons()):
            counted[name] = sum(memoryview(self.maps["reasons"].lookup(_number(number))).cast("Q"))
        return {name: count for name, count in counted.items() if count}

    def flow_count(self) -> int:
        """Return how many entries there are."""
        return sum(1 for _ in self.maps["flows"].items())

    def forget(self) -> None:
        """Take frontends, flows and counts away; what is attached stays."""
        for name in ("frontends", "members", "flows", "affinity"):
            self.maps[name].delete_many([key for key, _ in self.maps[name].items()])
        self._forget_clients()
        zero = bytes(8 * possible_cpus())
        self.maps["reasons"].update_many({_number(n): zero for n in range(len(reasons()))})
        self.settings()

    def _forget_clients(self) -> None:
        """Have it as after two rounds through no flows."""
        clients = self.maps["clients"]
        clients.update_many({key: bytes(8) for key, value in clients.items() if any(value)})
        clients.update(_number(_ROUND), (2).to_bytes(8, "little"))

    def close(self) -> None:
        """Let go of maps and programs; what is attached goes with its device."""
        self._stack.close()


def reasons() -> list[str]:
    """Return the names of all reasons, in their order."""
    text = re.sub(r"/\*.*?\*/", "", _REASONS.read_text(), flags=re.DOTALL)
    body = text.partition("enum reason {")[2].partition("}")[0]
    return [name.strip() for name in body.split(",")][:-1]


def everyone(**use: object) -> tuple[Use, Use, Use]:
    """Return the same use for all origins."""
    return (Use(**use),) * 3


def _add_clsact(netlink: IPRoute, index: int) -> None:
    kinds = [q.get_attr("TCA_KIND") for q in netlink.get_qdiscs(index=index)]
    if "clsact" not in kinds:
        netlink.tc("add", "clsact", index)


def _number(value: int) -> bytes:
    return struct.pack("=I", value)


def endpoints(addresses: Iterable[str], port: int) -> list[Where]:
    """Return these addresses with one port."""
    return [(address, port) for address in addresses]
