"""Random clusters on the test network, and random packets into them."""

from __future__ import annotations

import dataclasses

import msgspec
from hypothesis import strategies as st

from kproxy.core.addresses import Family, canonical_network, is_loopback
from kproxy.core.compile import Compiler
from kproxy.core.objects import (
    EndpointPort,
    EndpointSlice,
    Kind,
    Node,
    ObjectKey,
    Protocol,
    ServiceCIDR,
)
from kproxy.core.parse import from_builtins, kind_of
from kproxy.core.resolve import Forward, Packet, Verdict, resolve
from kproxy.core.settings import DetectLocalMode, LocalhostNodePorts, NodePortKeyword, Settings
from kproxy.core.store import Connected, Replaced
from tests.support.core import universe
from tests.support.core.things import HERE
from tests.support.core.universe import NODE_PORTS, NUMBERS, rarely, some
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.packets.asking import (
    CONTROL_OBJECTS,
    LOCAL_ADDRESSES,
    expectation,
    input_interface,
    place_of,
)
from tests.support.packets.table import Flow

_POD_PORTS = (8080, 9090)
_UNUSED_PORT = 7
PORTS = (*NUMBERS, *NODE_PORTS[1:], *_POD_PORTS, _UNUSED_PORT)
"""Every port that a packet may be for: somebody must answer there if it is let through."""

_CLUSTER_IPS = ("10.96.0.1", "10.96.0.2", "10.96.0.77", plan.NODE_DNS)
_EXTERNAL_IPS = ("203.0.113.140", "203.0.113.141", plan.NODE_VIP, plan.NODE, "10.96.0.1")
_UNCLAIMED = ("10.96.0.200", "203.0.113.150", plan.NODE_SECOND, plan.NODE2)
_PODS = (plan.POD1, plan.POD2, plan.POD3, plan.FAR1, plan.FAR2, plan.NODE, plan.NODE2)
_CLIENTS = (
    *(plan.CLIENT, plan.CLIENT2, plan.FAR_CLIENT, plan.FAR1, plan.FAR3, plan.NODE2),
    *(plan.POD1, plan.POD2, plan.POD3, plan.NODE, plan.NODE_SECOND),
)
_SOURCE_RANGES = (plan.CLUSTER_CIDR, "203.0.113.0/24", f"{plan.NODE}/32", "0.0.0.0/0")
_SERVICE_CIDRS = (plan.SERVICE_CIDR, "10.96.0.0/28")
_INHABITED_CIDR = "198.51.0.0/16"
_CONNECTED = ("192.0.2.0/24", "198.51.100.0/24")
_NODE_PORT_NETWORKS = {
    Family.IPV4: ("192.0.2.0/24", "127.0.0.0/8", "127.0.2.0/28"),
    Family.IPV6: ("2001:db8:2::/64", "::1/128"),
}
_LOOPBACK = {Family.IPV4: (plan.LOOPBACK, "127.0.2.1"), Family.IPV6: ("::1",)}


@st.composite
def tables(draw, family, *, inhabited):
    """The forwarding table of a random cluster, which has the control frontend as well.

    `inhabited` lets a ServiceCIDR have machines in it.
    """
    cidrs = (*_SERVICE_CIDRS, _INHABITED_CIDR) if inhabited else _SERVICE_CIDRS
    compiler = Compiler(draw(_settings(family)), [family])
    compiler.apply([Connected(frozenset(draw(some(_networks(_CONNECTED, family)))))])
    for kind, objects, least, most in (
        (Kind.SERVICE, _services(family), 1, 3),
        (Kind.ENDPOINT_SLICE, _slices(family), 0, 5),
        (Kind.NODE, _nodes(family), 0, 1),
        (Kind.SERVICE_CIDR, _service_cidrs(family, cidrs), 0, 1),
    ):
        found = draw(
            st.lists(objects, min_size=least, max_size=most, unique_by=lambda each: each.key)
        )
        compiler.apply([Replaced(kind, (*found, *_control(kind, family)))])
    return compiler.tables[family]


def flows(table):
    """Packets that may well meet a frontend, from clients of any kind, with what they deserve."""
    loopback = in_family(plan.LOOPBACK, table.family)
    clients = [loopback, *in_family(_CLIENTS, table.family)]
    ways = st.tuples(st.sampled_from(clients), st.sampled_from(_frontends(table)))
    return st.lists(ways, min_size=25, max_size=50, unique=True).map(
        lambda found: [
            flow
            for source, where in found
            if (source == loopback) == is_loopback(where[0])
            and (flow := _flow(table, source, *where)) is not None
        ]
    )


def _frontends(table):
    """Every (address, protocol, port) that somebody owns, and some that nobody does."""
    addresses = in_family((*_CLUSTER_IPS, *_EXTERNAL_IPS, *_UNCLAIMED), table.family)
    at = in_family((plan.NODE, plan.NODE_SECOND, plan.NODE_VIP), table.family)
    at += _LOOPBACK[table.family]
    owned = [
        *table.vips,
        *((address, protocol, port) for address in at for protocol, port in table.node_ports),
    ]
    ports = (*NUMBERS, *NODE_PORTS[1:], _UNUSED_PORT)
    others = [(address, protocol, port)
              for address in addresses for protocol in Protocol for port in ports]  # fmt: skip
    return owned * (1 + 2 * len(others) // max(1, len(owned))) + others


def _flow(table, source, destination, protocol, port) -> Flow | None:
    """Return a packet with its verdict, None if the node would not see it, or not its answer."""
    if place_of(source) == place_of(destination) == "node2":
        return None
    packet = Packet(source, destination, port, protocol, input_interface(source))
    verdict = resolve(table, packet, LOCAL_ADDRESSES)
    if _takes_a_short_cut(source, verdict):
        return None
    return Flow(
        group="random",
        family=table.family,
        why=verdict.reason,
        source=source,
        destination=destination,
        port=port,
        protocol=protocol,
        expected=expectation(verdict),
    )


def _takes_a_short_cut(source: str, verdict: Verdict) -> bool:
    """Say whether an answer may not come back through the node, so that nobody translates it.

    The second node and its pods are one machine, which answers itself straight away.
    """
    return (
        isinstance(verdict, Forward)
        and not verdict.masquerade
        and place_of(source) == "node2"
        and any(place_of(t.address) == "node2" and t.address != source for t in verdict.targets)
    )


def _control(kind, family):
    documents = in_family(CONTROL_OBJECTS, family)
    return [from_builtins(each) for each in documents if kind_of(each) is kind]


def _networks(texts, family):
    return [canonical_network(text) for text in in_family(texts, family)]


def _services(family):
    return st.builds(
        dataclasses.replace,
        universe.SERVICES,
        cluster_ips=st.tuples(st.sampled_from(in_family(_CLUSTER_IPS, family))),
        external_ips=some(in_family(_EXTERNAL_IPS, family)),
        load_balancer_ips=some(in_family(_EXTERNAL_IPS, family)),
        source_ranges=st.just(()) | some(_networks(_SOURCE_RANGES, family)),
    )


def _slices(family):
    endpoints = st.builds(
        msgspec.structs.replace,
        universe.endpoints(family),
        address=st.sampled_from(in_family(_PODS, family)),
    )
    ports = tuple(
        EndpointPort(name, protocol, number)
        for name, number in zip(("", "http"), _POD_PORTS, strict=True)
        for protocol in Protocol
    )
    return st.builds(
        EndpointSlice,
        st.sampled_from("12345").map(lambda name: ObjectKey("shop", name)),
        universe.SERVICE_KEYS,
        st.just(family),
        st.lists(endpoints, min_size=1, max_size=5).map(tuple),
        st.just(ports),
    )


def _nodes(family):
    return st.builds(
        Node,
        st.just(ObjectKey("", HERE)),
        st.sampled_from(["", *universe.ZONES]),
        some(in_family((plan.NODE, plan.NODE_SECOND), family)),
        some(_networks((plan.POD_CIDR,), family)),
        st.booleans(),
    )


def _service_cidrs(family, cidrs):
    key = ObjectKey("", "kubernetes")
    return st.builds(ServiceCIDR, st.just(key), some(_networks(cidrs, family)))


def _settings(family):
    return st.builds(
        Settings,
        node_name=st.just(HERE),
        detect_local=st.sampled_from(DetectLocalMode),
        cluster_cidrs=some(_networks((plan.CLUSTER_CIDR,), family)),
        bridge_interface=st.just("cbr0"),
        interface_name_prefix=st.just("pod"),
        masquerade_all=rarely(st.just(False), st.just(True)),
        node_port_addresses=st.just((NodePortKeyword.ALL,))
        | some((*NodePortKeyword, *map(canonical_network, _NODE_PORT_NETWORKS[family]))),
        localhost_ipv4=st.sampled_from(LocalhostNodePorts),
    )
