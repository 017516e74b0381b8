"""Ports of this node that something listens at and a Service takes away."""

import dataclasses

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind, ObjectKey, Protocol
from kproxy.core.occupied import Occupant
from kproxy.core.settings import ListensAt, LocalhostNodePorts, NodePortKeyword, Settings
from kproxy.core.store import Deleted, Replaced, Upserted
from tests.support.core.things import (
    HERE,
    NODE_ADDRESS,
    a_node,
    a_port,
    a_service,
    a_slice,
    an_endpoint,
    networks,
)

SERVERS = (
    ListensAt("healthzBindAddress", "0.0.0.0", 10256),
    ListensAt("metricsBindAddress", "127.0.0.1", 10249),
)
HEALTHZ = "kproxy's healthzBindAddress 0.0.0.0:10256"
METRICS = "kproxy's metricsBindAddress 127.0.0.1:10249"
API_SERVER = "the API server (EndpointSlice default/kubernetes)"
SSH = Occupant("", Protocol.TCP, 22, "what listens at port 22 of this node")


def compiled(*services, slices=(), settings=None):
    compiler = Compiler(settings or Settings(HERE, listens_at=SERVERS))
    compiler.apply(
        [
            Replaced(Kind.NODE, (a_node(NODE_ADDRESS),)),
            Replaced(Kind.SERVICE, services),
            Replaced(Kind.ENDPOINT_SLICE, tuple(slices)),
        ]
    )
    return compiler


def node_port(number, name="web", *, protocol=Protocol.TCP, **fields):
    return a_service(name, ports=[a_port(node_port=number, protocol=protocol)], **fields)


def front(number, *, cluster_ip="10.96.0.9"):
    return a_service(
        "front", cluster_ips=(cluster_ip,), external_local=True, health_check_node_port=number
    )


def of_api_server(address):
    key = ObjectKey("default", "kubernetes")
    return dataclasses.replace(a_slice(address, ports=((6443, ""),)), key=key, service=key)


def said(compiler):
    return sorted((c.address, c.protocol, c.port, c.winner, c.loser) for c in compiler.conflicts())


def test_a_health_port_that_is_a_node_port_is_never_reached():
    compiler = compiled(node_port(30073), front(30073))
    loser = "shop/front (healthCheckNodePort)"
    assert said(compiler) == [("", "TCP", 30073, "shop/web", loser)]
    compiler.apply([Upserted(front(30074))])
    assert said(compiler) == []
    compiler.apply([Upserted(node_port(30074))])
    assert said(compiler) == [("", "TCP", 30074, "shop/web", loser)]
    compiler.apply([Deleted(Kind.SERVICE, ObjectKey("shop", "front"))])
    assert said(compiler) == []


def test_a_service_can_take_its_own_health_port():
    both = a_service(
        ports=[a_port(node_port=30073)], external_local=True, health_check_node_port=30073
    )
    assert said(compiled(both)) == [
        ("", "TCP", 30073, "shop/web", "shop/web (healthCheckNodePort)")
    ]


@pytest.mark.parametrize(
    ("number", "protocol", "settings", "losers"),
    [
        (10256, Protocol.TCP, {}, [HEALTHZ]),
        (10256, Protocol.UDP, {}, []),
        (10249, Protocol.TCP, {}, [METRICS]),
        (10249, Protocol.TCP, {"localhost_ipv4": LocalhostNodePorts.NEVER}, []),
        (10256, Protocol.TCP, {"listens_at": ()}, []),
        (
            10256,
            Protocol.TCP,
            {"listens_at": (ListensAt("healthzBindAddress", NODE_ADDRESS, 10256),)},
            [f"kproxy's healthzBindAddress {NODE_ADDRESS}:10256"],
        ),
        (
            10256,
            Protocol.TCP,
            {
                "listens_at": (ListensAt("healthzBindAddress", NODE_ADDRESS, 10256),),
                "node_port_addresses": networks("198.51.100.0/24"),
            },
            [],
        ),
        (6443, Protocol.TCP, {}, [API_SERVER]),
        (6443, Protocol.TCP, {"node_port_addresses": networks("198.51.100.0/24")}, []),
        (6443, Protocol.TCP, {"node_port_addresses": (NodePortKeyword.PRIMARY,)}, [API_SERVER]),
        (30080, Protocol.TCP, {}, []),
    ],
)
def test_a_node_port_takes_what_it_is_met_at(number, protocol, settings, losers):
    settings = Settings(HERE, **{"listens_at": SERVERS, **settings})
    service = node_port(number, protocol=protocol)
    compiler = compiled(service, slices=[of_api_server(NODE_ADDRESS)], settings=settings)
    assert said(compiler) == [("", protocol.value, number, "shop/web", loser) for loser in losers]


def test_an_api_server_on_another_node_loses_nothing():
    compiler = compiled(node_port(6443), slices=[of_api_server("192.0.2.2")])
    assert said(compiler) == []
    compiler.apply([Upserted(of_api_server(NODE_ADDRESS))])
    assert [each[4] for each in said(compiler)] == [API_SERVER]
    compiler.apply([Upserted(a_node("192.0.2.3"))])
    assert said(compiler) == []


@pytest.mark.parametrize("field", ["external_ips", "load_balancer_ips"])
def test_an_external_address_that_is_the_nodes_own_takes_its_ports(field):
    service = a_service(ports=[a_port(10256)], **{field: (NODE_ADDRESS,)})
    assert said(compiled(service)) == [(NODE_ADDRESS, "TCP", 10256, "shop/web", HEALTHZ)]
    elsewhere = a_service(ports=[a_port(10256)], **{field: ("192.0.2.2",)})
    assert said(compiled(elsewhere)) == []


def test_who_is_seen_to_listen_loses_too_and_gets_it_back():
    compiler = compiled(node_port(22))
    assert said(compiler) == []
    compiler.listening(frozenset({SSH}))
    assert said(compiler) == [("", "TCP", 22, "shop/web", SSH.name)]
    compiler.listening(frozenset({SSH._replace(address="198.51.100.1", name="x")}))
    assert [each[4] for each in said(compiler)] == ["x"]
    compiler.listening(frozenset())
    assert said(compiler) == []


def test_who_is_known_by_name_is_not_seen_as_a_stranger_once_more():
    seen = frozenset(Occupant("", Protocol.TCP, port, "?") for port in (10256, 6443, 30073))
    services = [
        node_port(10256),
        node_port(30073, "other", cluster_ips=("10.96.0.2",)),
        node_port(6443, "third", cluster_ips=("10.96.0.3",)),
        front(30073),
    ]
    compiler = compiled(*services, slices=[of_api_server(NODE_ADDRESS)])
    before = said(compiler)
    compiler.listening(seen)
    assert said(compiler) == before
    assert len(before) == 3


@pytest.mark.parametrize(("node", "loses"), [(HERE, False), ("another", True)])
def test_a_listener_that_is_itself_the_endpoint_loses_nothing(node, loses):
    own = a_slice(an_endpoint(NODE_ADDRESS, node=node), ports=((30080, ""),))
    compiler = compiled(node_port(30080), slices=[own])
    compiler.listening(frozenset({Occupant("", Protocol.TCP, 30080, "a pod")}))
    assert len(said(compiler)) == loses


def test_the_set_stays_the_same_while_endpoints_come_and_go():
    compiler = compiled(node_port(30073), front(30073))
    before = compiler.conflicts()
    compiler.apply([Upserted(a_slice(an_endpoint("10.1.0.1", node=HERE)))])
    compiler.apply(
        [Upserted(a_slice(an_endpoint("10.1.0.2", node=HERE), name="f", service="front"))]
    )
    assert compiler.conflicts() is before


def test_both_families_lose_a_node_port_once():
    web = node_port(10256, cluster_ips=("10.96.0.1", "fd00::1"))
    compiler = compiled(web)
    assert set(compiler.tables) == set(Family)
    assert len(said(compiler)) == 1
