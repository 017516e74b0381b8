"""The test network: a node under test, its pods, a second node and the outside.

::

    outside ── eth0 [ node ] eth1 ── node2 (its pods' addresses are its own)
                      │  │  │
                   pod1 pod2 cbr0 ── pod3

Every machine but the node sends everything through the node, so each answer comes back the way
that the request went. `outside` is also the node's default gateway: a packet for an address that
nobody has ends there.

A network plugin with a bridge joins pods otherwise: all three are ports of `cbr0`, and they speak
to each other without the node. There the node is strict about where packets come from, too.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from pyroute2 import IPRoute

from kproxy.core.addresses import Family
from tests.support.net import plan
from tests.support.net.exchange import Exchange
from tests.support.net.namespace import Namespace
from tests.support.net.observed import Observed, Probe
from tests.support.net.plan import ipv6_of
from tests.support.waiting import LONGEST_S, until

_NAMES = ("node", "node2", "outside", "pod1", "pod2", "pod3")
_IFA_F_NODAD = 0x02
_IFF_UP = 1
_NUD_PERMANENT = 0x80

# The same on every link: each has two ends.
MAC_OF_NODE = "02:00:00:00:00:01"
MAC_OF_PEER = "02:00:00:00:00:02"
_PODS = {"pod1": plan.POD1, "pod2": plan.POD2, "pod3": plan.POD3}
# On one bridge each machine has a link address of its own.
_MAC_OF_POD = {name: f"02:00:00:00:01:{number:02x}" for number, name in enumerate(_PODS, start=1)}

_SYSCTLS = {
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratelimit": 0,
    "net/ipv6/icmp/ratemask": 0,  # only the unused type 0 counts towards the limit of all ICMP
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/default/router_solicitations": 0,
    "net/ipv6/conf/default/addr_gen_mode": 1,  # no link-local address: nothing sends unasked
}
_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}
_STRICT_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": 1,
    "net/ipv4/conf/default/rp_filter": 1,
}
# Where the kernel has br_netfilter, a bridge would translate and drop packets on its own.
_BRIDGE_SYSCTLS = {
    "net/bridge/bridge-nf-call-iptables": 0,
    "net/bridge/bridge-nf-call-ip6tables": 0,
}


class Pods(enum.Enum):
    """How pods are joined to their node."""

    ROUTED = "by interfaces of their own, one of them a bridge"
    BRIDGED = "by one bridge"


class Network:
    """All namespaces of one test network and the sockets in them. A context manager."""

    def __init__(self, pods: Pods = Pods.ROUTED) -> None:
        self._pods = pods
        self.namespaces = {name: Namespace(name) for name in _NAMES}
        self._places = {**plan.PLACES, **{ipv6_of(a): name for a, name in plan.PLACES.items()}}
        try:
            self._build()
            self._exchange = Exchange(self.namespaces)
        except BaseException:
            self._close_namespaces()
            raise

    @property
    def node(self) -> Namespace:
        """The namespace of the node under test."""
        return self.namespaces["node"]

    @property
    def local_addresses(self) -> frozenset[str]:
        """Every address of the node under test, of both families."""
        return frozenset(plan.NODE_ADDRESSES) | {ipv6_of(a) for a in plan.NODE_ADDRESSES}

    def machine(self, address: str) -> Namespace:
        """Return the namespace that an address of either family lives in."""
        return self.namespaces[self._places[address]]

    def add_pod(self, name: str, address: str) -> None:
        """Join one more pod to the node, by an interface of the same name."""
        self.namespaces[name] = Namespace(name)
        self._places |= {address: name, ipv6_of(address): name}
        _set(self.namespaces[name], _SYSCTLS)
        with _links(self.node) as node:
            node.connect(name, self.namespaces[name])
            self._lead(node, name, address)
            self._attach(name, (address,))
            node.wait_for_the_wires()

    def remove_pod(self, name: str) -> None:
        """Take a pod away that was joined later, its interface at once."""
        with _links(self.node) as node:
            node.remove(name)
        self.namespaces.pop(name).close()

    def serve(self, ports: Iterable[int], at: Iterable[str] = _NAMES) -> None:
        """Let namespaces answer on these ports, by all protocols and both families.

        The node's own answer tells that a packet to one of its addresses was let through.
        """
        wanted = set(ports)
        for place in at:
            self._exchange.serve(place, wanted)

    def send(self, probes: Iterable[Probe]) -> list[Observed]:
        """Send these packets at once and return what became of each, in their order."""
        return self._exchange.send(list(probes))

    def close(self) -> None:
        """Take the network down."""
        self._exchange.close()
        self._close_namespaces()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _close_namespaces(self) -> None:
        for namespace in self.namespaces.values():
            namespace.close()

    def _build(self) -> None:
        for namespace in self.namespaces.values():
            _set(namespace, _SYSCTLS)
        _set(self.node, _NODE_SYSCTLS)
        if self._pods is Pods.BRIDGED:
            _set(self.node, _STRICT_SYSCTLS)
        with self.node.entered():
            bridge_netfilter = os.path.exists("/proc/sys/net/bridge")
        if bridge_netfilter:
            _set(self.node, _BRIDGE_SYSCTLS)
        with _links(self.node) as node:
            node.up("lo")
            node.connect("eth0", self.namespaces["outside"])
            node.connect("eth1", self.namespaces["node2"])
            node.address("eth0", plan.NODE, whole_network=True)
            node.address("eth1", plan.NODE_SECOND, whole_network=True)
            node.link_local("eth1")
            node.address("lo", plan.NODE_VIP)
            node.address("lo", plan.NODE_DNS)
            if self._pods is Pods.ROUTED:
                self._join_by_routes(node)
            else:
                self._join_by_bridge(node)
            node.neighbour("eth0", plan.OUTSIDE, MAC_OF_PEER)
            node.neighbour("eth1", plan.NODE2, MAC_OF_PEER)
            node.route("eth1", to=plan.FAR_POD_CIDR, via=plan.NODE2)
            node.route("eth0", to=plan.FAR_CLIENT, via=plan.OUTSIDE)
            node.route("eth0", to="0.0.0.0/0", via=plan.OUTSIDE)
            self._attach("outside", (plan.OUTSIDE, plan.CLIENT, plan.CLIENT2, plan.FAR_CLIENT))
            self._attach("node2", (plan.NODE2, plan.FAR1, plan.FAR2, plan.FAR3, plan.FAR4))
            for pod, address in _PODS.items():
                self._attach(pod, (address,))
            node.wait_for_the_wires()
        if self._pods is Pods.BRIDGED:
            self._introduce_pods()

    def _join_by_routes(self, node: _Links) -> None:
        for pod, address in (("pod1", plan.POD1), ("pod2", plan.POD2)):
            node.connect(pod, self.namespaces[pod])
            self._lead(node, pod, address)
        node.bridge("cbr0", {"br3": self.namespaces["pod3"]})
        self._lead(node, "cbr0", plan.POD3)

    def _lead(self, node: _Links, interface: str, pod: str) -> None:
        """Let the node reach a pod by an interface."""
        node.address(interface, plan.NODE_POD_SIDE)
        node.route(interface, to=pod)
        node.neighbour(interface, pod, MAC_OF_PEER)

    def _join_by_bridge(self, node: _Links) -> None:
        node.bridge("cbr0", {f"br-{pod}": self.namespaces[pod] for pod in _PODS})
        node.address("cbr0", plan.NODE_POD_SIDE, whole_network=True)
        for pod, address in _PODS.items():
            node.neighbour("cbr0", address, _MAC_OF_POD[pod])

    def _introduce_pods(self) -> None:
        """Give pods their link addresses, and let them speak to each other by these."""
        for pod in _PODS:
            with _links(self.namespaces[pod]) as links:
                links.mac("eth0", _MAC_OF_POD[pod])
                for other in _PODS.keys() - {pod}:
                    links.route("eth0", to=_PODS[other])
                    links.neighbour("eth0", _PODS[other], _MAC_OF_POD[other])

    def _attach(self, name: str, addresses: tuple[str, ...]) -> None:
        """Give a machine its addresses and make the node its default gateway."""
        gateway = {"outside": plan.NODE, "node2": plan.NODE_SECOND}.get(name, plan.NODE_POD_SIDE)
        with _links(self.namespaces[name]) as links:
            links.up("lo")
            links.up("eth0")
            for address in addresses:
                links.address("eth0", address)
            links.route("eth0", to=gateway)
            links.neighbour("eth0", gateway, MAC_OF_NODE)
            links.route("eth0", to="0.0.0.0/0", via=gateway)


class _Links:
    """Interfaces, addresses and routes of one namespace; each call does both families."""

    def __init__(self, netlink: IPRoute) -> None:
        self._netlink = netlink
        self._index = {"lo": 1}

    def up(self, name: str) -> None:
        self._netlink.link("set", index=self._find(name), state="up")

    def connect(self, name: str, to: Namespace) -> None:
        """Make a veth whose other end is the `eth0` of another namespace."""
        peer = {"ifname": "eth0", "net_ns_fd": to.fd, "address": MAC_OF_PEER}
        self._netlink.link("add", ifname=name, kind="veth", peer=peer, address=MAC_OF_NODE)
        self.up(name)

    def bridge(self, name: str, ports: Mapping[str, Namespace]) -> None:
        """Make a bridge; its ports are veths that lead to other namespaces."""
        self._netlink.link("add", ifname=name, kind="bridge", address=MAC_OF_NODE)
        for port, to in ports.items():
            self.connect(port, to)
            self._netlink.link("set", index=self._find(port), master=self._find(name))
        self.up(name)

    def remove(self, name: str) -> None:
        """Remove an interface."""
        self._netlink.link("del", index=self._find(name))

    def mac(self, name: str, address: str) -> None:
        """Give an interface another link address."""
        self._netlink.link("set", index=self._find(name), address=address)

    def address(self, name: str, address: str, *, whole_network: bool = False) -> None:
        """Add an address, alone or with the network around it."""
        index = self._find(name)
        length = 24 if whole_network else 32
        self._netlink.addr("add", index=index, address=address, prefixlen=length)
        length = 64 if whole_network else 128
        flags = _IFA_F_NODAD
        ipv6 = ipv6_of(address)
        self._netlink.addr("add", index=index, address=ipv6, prefixlen=length, ifa_flags=flags)

    def link_local(self, name: str) -> None:
        """Add the address by which an interface asks for neighbours on behalf of another one."""
        index, flags = self._find(name), _IFA_F_NODAD
        self._netlink.addr("add", index=index, address="fe80::1", prefixlen=64, ifa_flags=flags)

    def route(self, name: str, *, to: str, via: str | None = None) -> None:
        """Route an address or a network out of an interface, to a neighbour if `via` names one."""
        for family in Family:
            where = {"dst": plan.in_family(to, family), "oif": self._find(name)}
            if via is not None:
                where["gateway"] = plan.in_family(via, family)
            else:
                where["scope"] = "link"
            self._netlink.route("add", **where)

    def neighbour(self, name: str, address: str, mac: str) -> None:
        """Name a neighbour's link address for good.

        A fresh interface answers neighbour solicitations only a moment after it came up, and the
        sender asks again after a second.
        """
        for family in Family:
            self._netlink.neigh(
                "add",
                ifindex=self._find(name),
                dst=plan.in_family(address, family),
                lladdr=mac,
                state=_NUD_PERMANENT,
            )

    def wait_for_the_wires(self) -> None:
        """Wait until every interface that is up sends what it is given.

        The other ends came up later: the kernel hears of that in a thread of its own, and drops
        what is sent before.
        """
        until(self._all_send, within_s=LONGEST_S, what="interfaces that are up have their queues")

    def _all_send(self) -> bool:
        up = (link for link in self._netlink.get_links() if link["flags"] & _IFF_UP)
        return all(link.get("qdisc") != "noop" for link in up)

    def _find(self, name: str) -> int:
        if name not in self._index:
            (self._index[name],) = self._netlink.link_lookup(ifname=name)
        return self._index[name]


@contextmanager
def _links(namespace: Namespace) -> Iterator[_Links]:
    with namespace.entered(), IPRoute() as netlink:
        yield _Links(netlink)


def _set(namespace: Namespace, settings: dict[str, int]) -> None:
    for name, value in settings.items():
        namespace.sysctl(name, value)
