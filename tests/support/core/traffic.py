"""Random packets that may well meet a frontend of a random cluster."""

from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.resolve import Packet
from tests.support.core.universe import (
    CLUSTER_IPS,
    EXTERNAL_IPS,
    NODE_ADDRESSES,
    NODE_PORTS,
    NUMBERS,
    POD_IPS,
    rarely,
)

_CLIENTS = {Family.IPV4: "203.0.113.77", Family.IPV6: "2001:db8:9::77"}
_NOBODY = {Family.IPV4: ("10.96.0.77", "8.8.8.8"), Family.IPV6: ("fd00:96::77", "2606::1")}
_LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
_PORTS = (*NUMBERS, *NODE_PORTS[1:], 8080, 1)


@st.composite
def packets(draw, table, local):
    """A packet to anywhere, from a client of any kind."""
    family = table.family
    destinations = (
        *CLUSTER_IPS[family],
        *EXTERNAL_IPS[family],
        *_NOBODY[family],
        *local,
        _LOOPBACK[family],
    )
    anything = st.tuples(
        st.sampled_from(destinations), st.sampled_from(Protocol), st.sampled_from(_PORTS)
    )
    known = _frontends(table)
    where = draw(rarely(st.sampled_from(known), anything) if known else anything)
    if draw(st.booleans()):
        source = draw(st.sampled_from([_LOOPBACK[family], *local]))
        return Packet(source, where[0], where[2], where[1], None)
    strangers = [ip for ip in (*POD_IPS[family], _CLIENTS[family]) if ip not in local]
    interface = draw(st.sampled_from(["eth0", "pods0", "pod7"]))
    return Packet(draw(st.sampled_from(strangers)), where[0], where[2], where[1], interface)


def _frontends(table):
    """Every (address, protocol, port) that somebody owns; NodePorts at the node's address."""
    own = NODE_ADDRESSES[table.family]
    return [
        *table.vips,
        *((own, protocol, port) for protocol, port in table.node_ports),
        *((_LOOPBACK[table.family], protocol, port) for protocol, port in table.node_ports),
    ]
