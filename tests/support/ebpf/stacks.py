"""Real stacks around the programs about packets: a client, a node that routes, and a server."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from backends.kernel.bpf import links
from backends.kernel.bpf.links import Order
from backends.kernel.bpf.programs import AttachType
from kproxy.core.addresses import Family
from tests.support import waiting
from tests.support.ebpf.packets import Ends, PacketPrograms, Role
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

WAIT_S = 20.0 * SLOWER
"""For what comes at once, on a machine that may be busy."""

_TRIES = 10
_LARGEST_DATAGRAM = 65536

PORTS = {"tcp": 6, "udp": 17}
FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

_MAC, _PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_SIOCETHTOOL = 0x8946
_SET_TX_CHECKSUM, _SET_SCATTER_GATHER = 0x17, 0x19


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses of a family."""

    client: str
    node: str
    node_far: str
    server: str
    frontend: str
    length: int
    services: str


PLANS = {
    Family.IPV4: Plan(
        *("10.1.0.2", "10.1.0.1", "10.2.0.1", "10.2.0.2", "10.96.0.10", 24), "10.96.0.0/24"
    ),
    Family.IPV6: Plan(*("fd01::2", "fd01::1", "fd02::1", "fd02::2", "fd96::a", 64), "fd96::/64"),
}

_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": 1,
    "net/ipv4/conf/default/rp_filter": 1,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/router_solicitations": 0,
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratelimit": 0,
    "net/ipv6/icmp/ratemask": 0,
}
_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/lo/accept_local": 1,
    "net/ipv4/conf/lo/route_localnet": 1,
}


class Stacks(ExitStack):
    """Namespaces joined by veth pairs `near` (to the client) and `far` (to the server)."""

    def __init__(self, packets: PacketPrograms) -> None:
        super().__init__()
        self.packets = packets
        self.family = packets.family
        self.plan = PLANS[packets.family]
        self.client, self.node, self.server = (
            self._namespace(name) for name in ("client", "node", "server")
        )
        for name, value in _NODE_SYSCTLS.items():
            self.node.sysctl(name, value)
        self._join("near", self.client, self.plan.node, self.plan.client)
        self._join("far", self.server, self.plan.node_far, self.plan.server)
        self.ip(self.node, f"route add {self.plan.services} via {self.plan.client} dev near")

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self.callback(namespace.close)
        for setting, value in _SYSCTLS.items():
            namespace.sysctl(setting, value)
        self.ip(namespace, "link set lo up")
        return namespace

    def _join(self, name: str, to: Namespace, near: str, far: str) -> None:
        length = self.plan.length
        there = f"/proc/{os.getpid()}/fd/{to.fd}"
        self.ip(
            self.node,
            f"link add {name} address {_MAC} type veth peer name eth0 address {_PEER_MAC} "
            f"netns {there}",
            f"addr add {near}/{length} dev {name} nodad",
            f"link set {name} up",
            # A fresh interface answers solicitations only after a moment.
            f"neigh add {far} lladdr {_PEER_MAC} dev {name} nud permanent",
        )
        self.ip(
            to,
            f"addr add {far}/{length} dev eth0 nodad",
            "link set eth0 up",
            f"neigh add {near} lladdr {_MAC} dev eth0 nud permanent",
            f"route add default via {near}",
        )
        self.wait_for(self.node, name)
        self.wait_for(to, "eth0")

    def wait_for(self, namespace: Namespace, device: str) -> None:
        """Wait until a device that was just set up sends what it is given."""
        waiting.until(
            functools.partial(_sends, namespace, device),
            within_s=waiting.LONGEST_S,
            what=f"{device} of {namespace.name} sends",
        )

    def ip(self, namespace: Namespace, *commands: str) -> None:
        """Run `ip` in a namespace."""
        family = "-4" if self.family is Family.IPV4 else "-6"
        if self.family is Family.IPV4:
            commands = tuple(command.replace(" nodad", "") for command in commands)
        with namespace.entered():
            subprocess.run(
                ["ip", family, "-batch", "-"], input="\n".join(commands), text=True, check=True
            )

    def attach(self, program: str, device: str, direction: str) -> None:
        """Let a program see what comes in by a device of the node, or goes out."""
        attach_type = AttachType[f"TCX_{direction.upper()}"]
        with self.node.entered():
            index = socket.if_nametoindex(device)
            self.enter_context(
                links.attach_to_device(
                    self.packets.programs[program], index, attach_type, Order.AFTER
                )
            )

    def serve_elsewhere(self, protocol: str) -> None:
        """Order that port 80 of the frontend is port 8080 of the server."""
        plan, packets, number = self.plan, self.packets, PORTS[protocol]
        there = Ends(plan.client, 0, plan.server, 8080)
        back = Ends(plan.frontend, 80, plan.client, 0)
        packets.rewrite(Role.DESTINATION, plan.frontend, 80, number, there, keep="source")
        packets.rewrite(Role.SOURCE, plan.server, 8080, number, back, keep="destination")
        about = Ends(plan.client, 0, plan.frontend, 80)
        packets.rewrite(Role.EMBEDDED_DESTINATION, plan.server, 8080, number, about, keep="source")

    def socket(self, namespace: Namespace, protocol: str, bind: tuple[str, int] | None = None):
        """Return a socket in a namespace, closed with all else."""
        with namespace.entered():
            made = socket.socket(FAMILIES[self.family], KINDS[protocol])
        self.enter_context(made)
        made.settimeout(WAIT_S)
        if bind is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(bind)
        return made

    def tap(self, namespace: Namespace, device: str) -> socket.socket:
        """Return a socket that sees the frames that come in by a device."""
        with namespace.entered():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.enter_context(made)
        made.settimeout(WAIT_S)
        made.bind((device, 3))
        return made

    def offload(self, namespace: Namespace, device: str, *, wanted: bool) -> None:
        """Let a device complete checksums and cut segments, or the stack."""
        with namespace.entered(), socket.socket() as sock:
            for command in (_SET_TX_CHECKSUM, _SET_SCATTER_GATHER):
                value = ctypes.create_string_buffer(struct.pack("=II", command, wanted), 8)
                request = struct.pack("16sQ16x", device.encode(), ctypes.addressof(value))
                fcntl.ioctl(sock, _SIOCETHTOOL, request)


def _sends(namespace: Namespace, device: str) -> bool:
    with namespace.entered():
        told = subprocess.run(
            ["ip", "-json", "link", "show", "dev", device], stdout=subprocess.PIPE, check=True
        )
    return bool(json.loads(told.stdout)[0]["qdisc"] != "noop")


def until_heard(sock: socket.socket, send: Callable[[], object]) -> bytes:
    """Send until something comes in at a socket; return that, or raise what the stack reports.

    A busy machine loses packets between namespaces: what they queue for a CPU is bounded.
    """
    sock.settimeout(WAIT_S / _TRIES)
    for _ in range(_TRIES):
        with contextlib.suppress(TimeoutError):
            send()
            return sock.recv(_LARGEST_DATAGRAM)
    raise TimeoutError(f"nothing came in {WAIT_S} s")


def refused(sock: socket.socket, destination: tuple[str, int], message: bytes = b"?") -> bool:
    """Say whether the stack reports that a connection or a datagram is refused."""
    try:
        sock.connect(destination)
        until_heard(sock, lambda: sock.send(message))
    except ConnectionRefusedError:
        return True
    return False
