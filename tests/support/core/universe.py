"""Random clusters: few names, addresses and ports, so that objects meet and quarrel."""

from hypothesis import strategies as st

from kproxy.core.addresses import Family, canonical_network
from kproxy.core.objects import (
    KIND_OF,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Kind,
    Node,
    NotProxied,
    ObjectKey,
    PortSpec,
    Protocol,
    Service,
    ServiceCIDR,
)
from kproxy.core.settings import DetectLocalMode, LocalhostNodePorts, NodePortKeyword, Settings
from kproxy.core.store import Deleted, Replaced, Upserted
from tests.support.core.things import HERE, THERE, networks

NODE_ADDRESSES = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
OTHER_NODE_ADDRESSES = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:1::1"}
CLUSTER_IPS = {
    Family.IPV4: ("10.96.0.1", "10.96.0.2", "10.96.1.1", "172.30.0.1"),
    Family.IPV6: ("fd00:96::1", "fd00:96::2", "fd00:96::1:1", "fd00:97::1"),
}
EXTERNAL_IPS = {
    Family.IPV4: ("203.0.113.1", "203.0.113.2", "10.96.0.1", "192.0.2.1"),
    Family.IPV6: ("2001:db8:2::1", "2001:db8:2::2", "fd00:96::1", "2001:db8::1"),
}
POD_IPS = {
    Family.IPV4: ("10.1.0.1", "10.1.0.2", "10.1.1.1", "10.1.1.2", "192.0.2.1"),
    Family.IPV6: ("fd00:1::1", "fd00:1::2", "fd00:1:1::1", "fd00:1:1::2", "2001:db8::1"),
}
# The last ones lie around nodes and pods.
CIDRS = networks("10.96.0.0/16", "10.96.0.0/30", "fd00:96::/112", "fd00:96::/48", "172.30.0.0/24",
                 "10.0.0.0/8", "192.0.2.0/24", "fd00::/32")  # fmt: skip
SOURCES = networks("10.1.0.0/16", "192.0.2.1/32", "203.0.113.0/24", "0.0.0.0/0",
                   "fd00:1::/32", "2001:db8::/64", "::/0", "2001:db8:2::1/128")  # fmt: skip
NUMBERS = (80, 81, 443)
NODE_PORTS = (0, 30000, 30001)
ZONES = ("a", "b")


def some(values, most=2):
    """A tuple of distinct values."""
    return st.lists(st.sampled_from(values), unique=True, max_size=most).map(tuple)


def either_family(by_family):
    return (*by_family[Family.IPV4], *by_family[Family.IPV6])


@st.composite
def port_specs(draw):
    """Ports as parsing leaves them: no name, number or node port twice for one protocol."""
    specs = draw(
        st.lists(
            st.builds(
                PortSpec,
                st.sampled_from(["", "http"]),
                st.sampled_from(Protocol),
                st.sampled_from(NUMBERS),
                st.sampled_from(NODE_PORTS),
            ),
            min_size=1,
            max_size=4,
        )
    )
    kept, seen = [], set()
    for spec in specs:
        marks = {(field, value, spec.protocol) for field, value in
                 (("name", spec.name), ("port", spec.port), ("node", spec.node_port)) if value
                 or field == "name"}  # fmt: skip
        if not marks & seen:
            seen |= marks
            kept.append(spec)
    return tuple(kept)


def rarely(usual, unusual):
    """Mostly the one, sometimes the other."""
    return st.sampled_from([usual] * 7 + [unusual]).flatmap(lambda chosen: chosen)


SERVICE_KEYS = st.sampled_from(["web", "api", "db"]).map(lambda name: ObjectKey("shop", name))
SERVICES = st.builds(
    Service,
    key=SERVICE_KEYS,
    not_proxied=rarely(st.none(), st.sampled_from(NotProxied)),
    cluster_ips=rarely(
        st.tuples(*map(st.sampled_from, CLUSTER_IPS.values())),
        some(CLUSTER_IPS[Family.IPV4], 1),
    ),
    external_ips=some(either_family(EXTERNAL_IPS), 4),
    load_balancer_ips=some(either_family(EXTERNAL_IPS), 4),
    source_ranges=some(SOURCES, 3) | st.just(()),
    ports=port_specs(),
    internal_local=st.booleans(),
    external_local=st.booleans(),
    affinity_timeout_s=st.sampled_from([None, None, 60]),
    health_check_node_port=st.sampled_from([0, 32000, 32001]),
)


READY, UNREADY, DRAINING = (True, True, False), (False, False, False), (False, True, True)


def endpoints(family):
    def made(address, node, conditions, zones, nodes):
        return Endpoint(address, node, *conditions, zones, nodes)

    return st.builds(
        made,
        st.sampled_from(POD_IPS[family]),
        st.sampled_from([HERE, THERE, ""]),
        st.sampled_from([READY, READY, READY, DRAINING, UNREADY]),
        some(ZONES),
        rarely(st.just(()), some((HERE, THERE))),
    )


EVERY_PORT = tuple(
    EndpointPort(name, protocol, 8080) for name in ("", "http") for protocol in Protocol
)
ENDPOINT_PORTS = st.just(EVERY_PORT) | some(
    (*EVERY_PORT, EndpointPort("http", Protocol.TCP, 9090)), 4
)
SLICES = st.sampled_from(Family).flatmap(
    lambda family: st.builds(
        EndpointSlice,
        st.sampled_from("12345").map(lambda name: ObjectKey("shop", name)),
        rarely(SERVICE_KEYS, st.none()),
        st.just(family),
        st.lists(endpoints(family), min_size=1, max_size=5).map(tuple),
        ENDPOINT_PORTS,
    )
)
NODES = st.builds(
    Node,
    st.sampled_from([ObjectKey("", HERE), ObjectKey("", HERE), ObjectKey("", THERE)]),
    st.sampled_from(["", *ZONES]),
    some((*NODE_ADDRESSES.values(), *OTHER_NODE_ADDRESSES.values())),
    some(networks("10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64")),
    st.booleans(),
)
SERVICE_CIDRS = st.builds(
    ServiceCIDR, st.sampled_from([ObjectKey("", "a"), ObjectKey("", "b")]), some(CIDRS)
)
OBJECTS = {
    Kind.SERVICE: SERVICES,
    Kind.ENDPOINT_SLICE: SLICES,
    Kind.NODE: NODES,
    Kind.SERVICE_CIDR: SERVICE_CIDRS,
}
SETTINGS = st.builds(
    Settings,
    node_name=st.just(HERE),
    detect_local=st.sampled_from(DetectLocalMode),
    cluster_cidrs=some([canonical_network(text) for text in ("10.1.0.0/24", "fd00:1::/64")]),
    bridge_interface=st.just("pods0"),
    interface_name_prefix=st.just("pod"),
    masquerade_all=st.sampled_from([False, False, True]),
    node_port_addresses=st.just((NodePortKeyword.ALL,))
    | some((*NodePortKeyword, *networks("192.0.2.0/24", "2001:db8::/64", "127.0.0.1/32")), 3),
    localhost_ipv4=st.sampled_from(LocalhostNodePorts),
    localhost_ipv6=st.sampled_from(LocalhostNodePorts),
)


def lists(kind, least=0, most=3):
    """A complete list of one kind: no key twice."""
    return st.lists(OBJECTS[kind], min_size=least, max_size=most, unique_by=lambda o: o.key).map(
        lambda objects: Replaced(kind, tuple(objects))
    )


CLUSTERS = st.tuples(
    lists(Kind.SERVICE, 1),
    lists(Kind.ENDPOINT_SLICE, 1, 5),
    lists(Kind.NODE),
    lists(Kind.SERVICE_CIDR),
)
"""Complete lists of all kinds."""

ONE_CHANGE = st.one_of(
    st.one_of(*OBJECTS.values()).map(Upserted),
    SERVICES.map(Upserted),
    SLICES.map(Upserted),
    st.one_of(*OBJECTS.values()).map(lambda each: Deleted(KIND_OF[type(each)], each.key)),
    st.sampled_from(Kind).flatmap(lists),
)
CHANGES = st.lists(ONE_CHANGE, max_size=12)


@st.composite
def batches(draw, changes):
    """The same changes, handed over in a few goes."""
    rest, result = list(changes), []
    while rest:
        count = draw(st.integers(1, len(rest)))
        result.append(rest[:count])
        rest = rest[count:]
    return result
