"""Real packets to external addresses: frontends are served, and all other ports pass."""

import itertools
import socket

import pytest

from backends.ipvs.driver.link import ServiceLink, SharedLink
from backends.ipvs.driver.servers import Servers
from backends.ipvs.driver.sets import Sets
from backends.ipvs.render.rules import TABLES
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.image import Changes
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    FromNetwork,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Target,
    Use,
    Via,
    Vip,
)
from tests.support.iptables.applied import iptables, run
from tests.support.ipvs.owners import owners
from tests.support.ipvs.world import World
from tests.support.net import plan
from tests.support.net.network import Network
from tests.support.net.observed import Answered, Left, Probe, Refused
from tests.support.net.plan import in_family
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
ANYONES, LOCALS, NOBODYS = "203.0.113.101", "203.0.113.102", "203.0.113.103"
PORT, OTHER_PORT, TARGET_PORT = 443, 444, 8080
SLOW, SLOW_TARGET_PORT = "203.0.113.104", 9090  # its only endpoint is a test's own
ENDPOINTS = (plan.POD1, plan.FAR1)
CLIENTS = (plan.CLIENT, plan.FAR_CLIENT, plan.POD2, plan.NODE)
PROTOCOLS = (Protocol.TCP, Protocol.UDP)
NARROW = 1300  # bytes; the least that IPv6 needs is 1280
IPV4_HEADERS, IPV6_HEADERS = 40, 60
IP_RECVERR, IPV6_RECVERR = 11, 25


@pytest.fixture(scope="module")
def network():
    """A node that asks each packet's source for the way back, in ipvs mode."""
    with Network() as made:
        made.serve([TARGET_PORT])
        made.node.sysctl("net/ipv4/vs/conntrack", 1)
        made.node.sysctl("net/ipv4/conf/all/rp_filter", 1)
        with made.node.entered():
            shared = SharedLink()
            for family in Family:
                apply(family, shared)
        yield made


def apply(family, shared):
    """Put into the kernel what is rendered of a table."""
    link = ServiceLink(family, shared)
    world = World(family)
    world.update(table(family), link.surroundings())
    changes = Changes(world.image, frozenset())
    link.put(changes)
    link.close()
    Sets(family).put(changes)
    restored = "".join(f"*{name}\n{restore(world, name)}COMMIT\n" for name in TABLES)
    run(f"{iptables(family, Variant.LEGACY, 'restore')} --noflush", restored)
    Servers(family, owners()).put(changes, ())


def restore(world, table_name):
    """The chains of one table, as iptables-restore reads them."""
    chains = {name: rules for (of, name), rules in world.chains().items() if of == table_name}
    made = "".join(f":{name} - [0:0]\n" for name in chains if name.startswith("KPROXY-"))
    lines = (f"-A {name} {rule}\n" for name, rules in chains.items() for rule in rules)
    return made + "".join(lines)


def table(family):
    """Load balancers: for all, with externalTrafficPolicy Local, without endpoints, a slow one."""
    node = NodeRules(
        local_pods=FromNetwork(canonical_network(in_family(plan.POD_CIDR, family))),
        masquerade_all=False,
        node_port_addresses=(),
        localhost_node_ports=(),
        service_cidrs=(canonical_network(in_family(plan.SERVICE_CIDR, family)),),
        shared_ranges=(),
    )
    targets = tuple(
        Target(in_family(each, family), TARGET_PORT, local=each == plan.POD1) for each in ENDPOINTS
    )
    ports = [
        load_balancer(family, protocol, address, uses, targets)
        for protocol in PROTOCOLS
        for address, uses in (
            (ANYONES, Use.TARGETS),
            (LOCALS, Use.LOCAL_TARGETS),
            (NOBODYS, Use.REJECT),
        )
    ]
    slow = Target(in_family(plan.POD1, family), SLOW_TARGET_PORT, local=True)
    ports.append(load_balancer(family, Protocol.UDP, SLOW, Use.TARGETS, (slow,)))
    return TableChanges(family, rules=node, service_ports={port.key: port for port in ports})


def load_balancer(family, protocol, address, use, targets):
    """A service port that is met at one external address."""
    targets = () if use is Use.REJECT else targets
    is_local = use is Use.LOCAL_TARGETS
    return ServicePort(
        key=ServicePortKey("shop", f"of-{address}", "web", protocol),
        frontends=(Vip(Via.LOAD_BALANCER, in_family(address, family), PORT),),
        internal=Use.TARGETS if targets else Use.REJECT,
        external=use,
        external_local=is_local,
        targets=targets,
        local_targets=tuple(target for target in targets if target.local) if is_local else (),
        sources=None,
        affinity_timeout_s=None,
        serving=frozenset(),
    )


def asked(network, family, address, port=PORT, clients=CLIENTS, times=1):
    """What becomes of packets from each client, by each protocol."""
    pairs = [*itertools.product(clients, PROTOCOLS)] * times
    probes = [
        Probe(in_family(client, family), in_family(address, family), port, protocol)
        for client, protocol in pairs
    ]
    numbered = [(*pair, n) for n, pair in enumerate(pairs)]
    return dict(zip(numbered, network.send(probes), strict=True))


def places(outcomes):
    """Who answered; what else came of packets is there as it is."""
    return {each.by if isinstance(each, Answered) else each for each in outcomes.values()}


@FAMILIES
def test_frontends_are_served_and_other_ports_pass(network, family):
    everyone = {in_family(f"{each}:{TARGET_PORT}", family) for each in ENDPOINTS}
    nearby = in_family(f"{plan.POD1}:{TARGET_PORT}", family)
    assert places(asked(network, family, ANYONES, times=4)) == everyone
    outsiders = asked(network, family, LOCALS, clients=(plan.CLIENT,))
    assert places(outsiders) == {nearby}
    assert all(in_family(plan.CLIENT, family) in each.source for each in outsiders.values())
    within = asked(network, family, LOCALS, clients=(plan.POD2, plan.NODE), times=4)
    assert places(within) == everyone
    assert places(asked(network, family, NOBODYS)) == {Refused()}
    for address in (ANYONES, LOCALS, NOBODYS):
        others = asked(network, family, address, OTHER_PORT)
        assert {type(each) for each in others.values()} == {Left}, others


@pytest.fixture
def link_of_kube_proxy(network, family):
    """The link on which the node has an external address, as kube-proxy leaves it."""
    ip = f"ip -{4 if family is Family.IPV4 else 6}"
    with network.node.entered():
        run("ip link add kube-ipvs0 type dummy")
        run(f"{ip} address add {in_family(ANYONES, family)}/{family.bits} dev kube-ipvs0 nodad")
    yield
    with network.node.entered():
        run("ip link delete kube-ipvs0")


@FAMILIES
def test_what_listens_on_the_node_answers_at_no_external_address(
    network, family, link_of_kube_proxy
):
    everyone = {in_family(f"{each}:{TARGET_PORT}", family) for each in ENDPOINTS}
    assert places(asked(network, family, ANYONES, times=4)) == everyone
    nodes = in_family(f"{plan.NODE}:{TARGET_PORT}", family)
    assert places(asked(network, family, plan.NODE, TARGET_PORT)) == {nodes}
    assert places(asked(network, family, ANYONES, TARGET_PORT)) == {Refused()}


def client_socket(network, family, kind):
    """A socket of a client outside."""
    with network.machine(in_family(plan.CLIENT, family)).entered():
        made = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, kind)
    made.settimeout(LONGEST_S)
    made.bind((in_family(plan.CLIENT, family), 0))
    return made


@FAMILIES
def test_tcp_agrees_on_what_fits_the_way_to_the_endpoint(network, family):
    with network.node.entered():
        run(f"ip link set pod1 mtu {NARROW}")
    with client_socket(network, family, socket.SOCK_STREAM) as client:
        client.connect((in_family(LOCALS, family), PORT))
        most = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    with network.node.entered():
        run("ip link set pod1 mtu 1500")
    headers = IPV4_HEADERS if family is Family.IPV4 else IPV6_HEADERS
    assert NARROW - headers - 20 <= most <= NARROW - headers


@FAMILIES
def test_an_error_about_an_answer_reaches_the_endpoint(network, family):
    """The client is gone when the endpoint answers, and its host says so."""
    v4 = family is Family.IPV4
    with network.machine(in_family(plan.POD1, family)).entered():
        endpoint = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with endpoint:
        endpoint.bind((in_family(plan.POD1, family), SLOW_TARGET_PORT))
        level = socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6
        endpoint.setsockopt(level, IP_RECVERR if v4 else IPV6_RECVERR, 1)
        endpoint.settimeout(LONGEST_S)
        with client_socket(network, family, socket.SOCK_DGRAM) as client:
            client.sendto(b"asked", (in_family(SLOW, family), PORT))
            _, sender, *_ = endpoint.recvfrom(9)
        endpoint.sendto(b"late", sender)
        with pytest.raises(ConnectionRefusedError):
            endpoint.recvfrom(9)
