"""A namespace with a node, its clients and its pods on one device, and rules that translate."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterable
from functools import partial

from backends.kernel import conntrack
from kproxy.core.addresses import Family, canonical_network, endpoint_text
from kproxy.core.flows import Destinations, Flow, Where
from kproxy.core.objects import Protocol
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S, until

_PREFIXES = {
    Family.IPV4: ("10.96.0.", "10.244.0.", "192.0.2."),
    Family.IPV6: ("fd00:96::", "fd00:244::", "2001:db8::"),
}
_TRANSPORTS = {Protocol.UDP: socket.SOCK_DGRAM, Protocol.TCP: socket.SOCK_STREAM}


class Node:
    """All addresses are local; what is not translated leaves by a device that leads nowhere."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._af = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        vips, pods, hosts = _PREFIXES[family]
        self.vips: list[Where] = [(f"{vips}{n}", 53) for n in range(1, 9)]
        self.pods: list[Where] = [(f"{pods}{n}", 5353) for n in range(1, 4)]
        self.address, self.client = f"{hosts}1", f"{hosts}7"
        self.services = canonical_network(f"{vips}0/{family.bits - 16}")
        self.namespace = Namespace("node")
        self._sockets: list[socket.socket] = []
        self._clients: dict[int, socket.socket] = {}
        self._ip("link", "set", "lo", "up")
        own = (self.address, self.client, *(address for address, _ in self.pods))
        for address in own:
            self._ip("addr", "add", f"{address}/{family.bits}", "dev", "lo")
        # The kernel gets to IPv6 addresses later: until then they cannot be bound, nor reached.
        until(partial(self._has, own), within_s=LONGEST_S, what=f"{own} are the node's own")
        self._ip("link", "add", "uplink", "type", "veth", "peer", "nowhere")
        self._ip("link", "set", "nowhere", "up")
        self._ip("link", "set", "uplink", "up", "arp", "off")
        self._ip("route", "add", str(self.services), "dev", "uplink")
        # A rule that needs to know the state makes the kernel track.
        self.iptables("filter", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID")

    def close(self) -> None:
        """Let go of the namespace and all that is in it."""
        for each in self._sockets:
            each.close()
        self.namespace.close()

    def iptables(self, table: str, *rule: object) -> None:
        """Run iptables in the namespace."""
        tool = "iptables-nft" if self.family is Family.IPV4 else "ip6tables-nft"
        self._run(tool, "-w", "5", "-t", table, *map(str, rule))

    def translate(self, to: Where, target: Where, command: str = "-A") -> None:
        """Add (or with -D remove) a rule that sends the UDP flows to `to` to `target`."""
        match = ("OUTPUT", "-p", "udp", "-d", to[0], "--dport", to[1])
        self.iptables(
            "nat", command, *match, "-j", "DNAT", "--to-destination", endpoint_text(*target)
        )

    def socket(self, where: Where, protocol: Protocol = Protocol.UDP) -> socket.socket:
        """Return a bound socket; it does not block."""
        with self.namespace.entered():
            made = socket.socket(self._af, _TRANSPORTS[protocol] | socket.SOCK_NONBLOCK)
        self._sockets.append(made)
        made.bind(where)
        return made

    @staticmethod
    def heard(sock: socket.socket) -> bytes:
        """Return the next datagram at a socket, once it is there."""
        select.select([sock], [], [], LONGEST_S)
        return sock.recv(9)

    def open(self, to: Where, source_port: int) -> socket.socket:
        """Open a UDP flow from the client by one packet."""
        made = self._clients.get(source_port) or self.socket((self.client, source_port))
        self._clients[source_port] = made
        made.sendto(b"?", to)
        return made

    def listed(self, wanted: Destinations) -> list[Flow]:
        """Return the wanted entries in a stable order."""
        with self.namespace.entered():
            return sorted(conntrack.list_udp(self.family, wanted))

    def delete(self, flows: Iterable[Flow]) -> int:
        """Remove entries."""
        with self.namespace.entered():
            return conntrack.delete(self.family, flows)

    def tracked(self) -> int:
        """Return how many entries of any protocol the namespace has."""
        with self.namespace.entered(), open("/proc/sys/net/netfilter/nf_conntrack_count") as count:
            return int(count.read())

    def _has(self, addresses: tuple[str, ...]) -> bool:
        routes = self._ip("route", "show", "table", "local").split()
        return all(address in routes for address in addresses)

    def _ip(self, *arguments: str) -> str:
        return self._run("ip", "-4" if self.family is Family.IPV4 else "-6", *arguments)

    def _run(self, *command: str) -> str:
        with self.namespace.entered():
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout
