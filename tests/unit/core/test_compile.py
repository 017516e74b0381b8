"""What objects yield, what a change costs, and who gets a frontend that two claim."""

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind, NotProxied, ObjectKey, Protocol
from kproxy.core.settings import Settings
from kproxy.core.store import Deleted, Replaced, Upserted
from kproxy.core.table import HealthCheck, NodePort, ServicePortKey, Target, Use, Via, Vip
from tests.support.core.things import (
    HERE,
    NODE_ADDRESS,
    a_cidr,
    a_node,
    a_port,
    a_service,
    a_slice,
    an_endpoint,
    draining,
    key,
    listed,
    networks,
)

V4, V6 = Family.IPV4, Family.IPV6
A, B = "10.1.0.1", "10.1.0.2"
LOCAL = an_endpoint(A, node=HERE)
REMOTE = an_endpoint(B, node="n2")


def compiled(*objects):
    compiler = Compiler(Settings(HERE))
    compiler.apply(listed(*objects))
    return compiler


def entry(*objects, family=V4, name="web", port="", protocol=Protocol.TCP):
    table = compiled(*objects).tables[family]
    return table.service_ports[ServicePortKey("shop", name, port, protocol)]


def targets(*addresses, local=False):
    return tuple(Target(address, 8080, local) for address in addresses)


def test_nothing_is_said_before_both_lists_are_known():
    compiler = Compiler(Settings(HERE))
    services, slices, *others = listed(a_service(), a_slice(A), a_node(NODE_ADDRESS))

    assert compiler.apply([*others, Upserted(a_service("api"))]) == {}
    assert compiler.apply([services]) == {}
    assert not compiler.ready
    first = compiler.apply([slices])
    assert compiler.ready
    assert set(first) == {V4, V6}
    assert [str(k) for k in first[V4].service_ports] == ["shop/web"]
    assert first[V6].rules is not None, "a family without Services has rules too"


def test_every_frontend_of_a_service_is_in_the_table_of_its_family():
    service = a_service(
        cluster_ips=("10.96.0.1", "fd00:96::1"),
        external_ips=("192.0.2.9", "2001:db8::9"),
        load_balancer_ips=("203.0.113.1", "2001:db8::a"),
        ports=[a_port(80, node_port=30080)],
    )

    assert set(entry(service).frontends) == {
        Vip(Via.CLUSTER_IP, "10.96.0.1", 80),
        Vip(Via.EXTERNAL_IP, "192.0.2.9", 80),
        Vip(Via.LOAD_BALANCER, "203.0.113.1", 80),
        NodePort(30080),
    }
    assert set(entry(service, family=V6).frontends) == {
        Vip(Via.CLUSTER_IP, "fd00:96::1", 80),
        Vip(Via.EXTERNAL_IP, "2001:db8::9", 80),
        Vip(Via.LOAD_BALANCER, "2001:db8::a", 80),
        NodePort(30080),
    }


def test_a_family_without_cluster_ip_has_nothing_of_the_service():
    service = a_service(external_ips=("2001:db8::9",), ports=[a_port(node_port=30080)])
    table = compiled(service).tables[V6]

    assert (table.service_ports, table.vips, table.node_ports) == ({}, {}, {})


@pytest.mark.parametrize("why", NotProxied)
def test_a_service_that_is_not_proxied_yields_nothing(why):
    table = compiled(a_service(not_proxied=why), a_slice(A)).tables[V4]

    assert (table.service_ports, table.cluster_ips) == ({}, set())


def test_each_port_gets_the_endpoints_of_its_name_and_protocol():
    service = a_service(
        ports=[a_port(80, name="http"), a_port(53, name="http", protocol=Protocol.UDP)]
    )
    objects = (
        service,
        a_slice(A, ports=[(8080, "http")]),
        a_slice(B, name="2", ports=[(8080, "http")], protocol=Protocol.UDP),
    )

    assert entry(*objects, port="http").targets == targets(A)
    assert entry(*objects, port="http", protocol=Protocol.UDP).targets == targets(B)


def test_slices_of_the_other_family_do_not_count():
    assert entry(a_service(), a_slice("fd00:1::1")).internal is Use.REJECT


@pytest.mark.parametrize(
    ("endpoints", "policy_local", "use"),
    [
        ([], False, Use.REJECT),
        ([], True, Use.REJECT),
        ([REMOTE], False, Use.TARGETS),
        ([REMOTE], True, Use.DROP),
        ([LOCAL, REMOTE], True, Use.LOCAL_TARGETS),
        ([draining(A, node=HERE), REMOTE], True, Use.LOCAL_TARGETS),
        ([draining(A, node="n2")], True, Use.DROP),
    ],
)
def test_what_a_policy_leaves_of_the_endpoints(endpoints, policy_local, use):
    ports = [a_port(node_port=30080)]
    external = entry(a_service(ports=ports, external_local=policy_local), a_slice(*endpoints))
    internal = entry(a_service(ports=ports, internal_local=policy_local), a_slice(*endpoints))

    assert (external.external, external.external_local) == (use, policy_local)
    assert internal.internal is use


def test_endpoints_that_no_policy_needs_are_left_out():
    slices = a_slice(LOCAL, REMOTE)
    both = targets(A, local=True) + targets(B)

    plain = entry(a_service(), slices)
    inward = entry(a_service(internal_local=True), slices)
    exposed = entry(a_service(internal_local=True, ports=[a_port(node_port=30080)]), slices)
    assert (plain.targets, plain.local_targets) == (both, ())
    assert (inward.targets, inward.local_targets) == ((), both[:1])
    assert (exposed.targets, exposed.local_targets) == (both, both[:1])


def test_serving_endpoints_are_kept_for_udp_alone():
    slices = [a_slice(A, draining(B)), a_slice(A, draining(B), name="2", protocol=Protocol.UDP)]
    service = a_service(ports=[a_port(), a_port(protocol=Protocol.UDP)])

    assert entry(service, *slices).serving == frozenset()
    udp = entry(service, *slices, protocol=Protocol.UDP)
    assert udp.serving == {(A, 8080), (B, 8080)}


def test_one_moved_endpoint_changes_one_service_port_and_nothing_else():
    services = [a_service(f"web{n}", cluster_ips=(f"10.96.0.{n}", f"fd00:96::{n}"))
                for n in range(1, 30)]  # fmt: skip
    slices = [a_slice(A, name=f"{n}", service=f"web{n}") for n in range(1, 30)]
    compiler = compiled(*services, *slices)

    changed = compiler.apply([Upserted(a_slice(B, name="7", service="web7"))])

    assert set(changed) == {V4}
    assert list(changed[V4].service_ports) == [ServicePortKey("shop", "web7", "", Protocol.TCP)]
    assert not changed[V4].cluster_ips
    assert not changed[V4].health_checks
    assert changed[V4].rules is None


def test_a_slice_that_says_nothing_new_changes_nothing():
    compiler = compiled(a_service(), a_slice(A))

    assert compiler.apply([Upserted(a_slice(A))]) == {}
    assert compiler.apply([Upserted(a_slice(A, name="2"))]) == {}
    assert compiler.apply([Upserted(a_slice(A, name="3", service="nobody"))]) == {}


def test_which_of_two_slices_wins_an_address_does_not_depend_on_which_came_last():
    first, second = a_slice(A, name="1"), a_slice(an_endpoint(A, ready=False), name="2")
    compiler = compiled(a_service(), first, second)
    (entry,) = compiler.tables[V4].service_ports.values()
    assert entry.targets == ()

    compiler.apply([Deleted(Kind.ENDPOINT_SLICE, key("1"))])
    assert compiler.apply([Upserted(first)]) == {}


def test_a_slice_may_move_from_one_service_to_another():
    compiler = compiled(
        a_service(), a_service("api", cluster_ips=("10.96.0.2",)), a_slice(A, service="web")
    )
    compiler.apply([Upserted(a_slice(A, service="api"))])

    found = {k.name: e.targets for k, e in compiler.tables[V4].service_ports.items()}
    assert found == {"web": (), "api": targets(A)}


@pytest.mark.parametrize("kind", [Kind.SERVICE, Kind.ENDPOINT_SLICE])
def test_what_a_new_list_lacks_is_gone(kind):
    compiler = compiled(a_service(), a_slice(A))
    compiler.apply([Replaced(kind, ())])

    if kind is Kind.SERVICE:
        assert not compiler.tables[V4].service_ports
        assert not compiler.tables[V4].cluster_ips
    else:
        (left,) = compiler.tables[V4].service_ports.values()
        assert left.internal is Use.REJECT


def test_deleting_what_does_not_exist_changes_nothing():
    compiler = compiled(a_service())

    assert all(compiler.apply([Deleted(kind, key("nobody"))]) == {} for kind in Kind)


def test_a_cluster_ip_is_known_as_long_as_any_service_has_it():
    compiler = compiled(a_service(), a_service("api", ports=[a_port(81)]))

    assert V4 in compiler.apply([Deleted(Kind.SERVICE, key("web"))])
    assert compiler.tables[V4].cluster_ips == {"10.96.0.1"}
    changed = compiler.apply([Deleted(Kind.SERVICE, key("api"))])
    assert changed[V4].cluster_ips == {"10.96.0.1": False}


def test_nobody_takes_a_cluster_ip_by_calling_it_external():
    thief = a_service("a-thief", cluster_ips=("10.96.0.9",), external_ips=("10.96.0.1",))
    balancer = a_service("b-thief", cluster_ips=("10.96.0.8",), load_balancer_ips=("10.96.0.1",))
    compiler = compiled(thief, balancer, a_service())

    owner, via = compiler.tables[V4].vips["10.96.0.1", Protocol.TCP, 80]
    assert (owner.name, via) == ("web", Via.CLUSTER_IP)
    assert [
        (c.address, c.protocol, c.port, c.winner, c.loser) for c in sorted(compiler.conflicts())
    ] == [
        ("10.96.0.1", "TCP", 80, "shop/web", "shop/a-thief"),
        ("10.96.0.1", "TCP", 80, "shop/web", "shop/b-thief"),
    ]


def test_the_lower_name_gets_a_disputed_node_port_whoever_came_first():
    first = a_service("a", cluster_ips=("10.96.0.2",), ports=[a_port(node_port=30080)])
    second = a_service("b", cluster_ips=("10.96.0.3",), ports=[a_port(node_port=30080)])
    for order in ([first, second], [second, first]):
        compiler = compiled(*order[:1])
        compiler.apply([Upserted(order[1])])
        assert compiler.tables[V4].node_ports[Protocol.TCP, 30080].name == "a"
        assert [(c.address, c.port, c.loser) for c in sorted(compiler.conflicts())] == [
            ("", 30080, "shop/b")
        ]


def test_the_loser_takes_over_when_the_winner_goes():
    compiler = compiled(a_service("a", ports=[a_port(node_port=30080)]),
                        a_service("b", cluster_ips=("10.96.0.2",),
                                  ports=[a_port(node_port=30080)]))  # fmt: skip
    changed = compiler.apply([Deleted(Kind.SERVICE, key("a"))])

    assert {k.name for k in changed[V4].service_ports} == {"a", "b"}
    assert compiler.tables[V4].node_ports[Protocol.TCP, 30080].name == "b"
    assert not compiler.conflicts()


def test_one_number_on_two_protocols_is_no_conflict():
    compiler = compiled(
        a_service("a", ports=[a_port(53, node_port=30053)]),
        a_service("b", ports=[a_port(53, node_port=30053, protocol=Protocol.UDP)]),
    )

    assert not compiler.conflicts()
    assert len(compiler.tables[V4].node_ports) == 2


def test_an_address_that_is_external_and_load_balanced_is_no_conflict_with_oneself():
    service = a_service(external_ips=("203.0.113.1",), load_balancer_ips=("203.0.113.1",))
    compiler = compiled(service)

    assert not compiler.conflicts()
    _, via = compiler.tables[V4].vips["203.0.113.1", Protocol.TCP, 80]
    assert via is Via.EXTERNAL_IP, "as upstream, whose source ranges do not apply then"


def test_a_health_check_counts_local_ready_endpoints_of_its_family():
    service = a_service(
        cluster_ips=("10.96.0.1", "fd00:96::1"),
        external_local=True,
        health_check_node_port=32000,
    )
    slices = [a_slice(LOCAL, REMOTE), a_slice("fd00:1::1", name="6")]
    compiler = compiled(service, *slices)

    assert compiler.tables[V4].health_checks == {key("web"): HealthCheck(32000, 1)}
    assert compiler.tables[V6].health_checks == {key("web"): HealthCheck(32000, 0)}
    more = a_slice(an_endpoint("10.1.0.3", node=HERE), name="2")
    changed = compiler.apply([Upserted(more)])
    assert changed[V4].health_checks == {key("web"): HealthCheck(32000, 2)}
    gone = compiler.apply([Deleted(Kind.SERVICE, key("web"))])
    assert gone[V4].health_checks == {key("web"): None}


@pytest.mark.parametrize(
    ("ranges", "node", "sources"),
    [
        ((), a_node(NODE_ADDRESS), None),
        (("203.0.113.0/24",), None, ("203.0.113.0/24",)),
        (("203.0.113.0/24",), a_node(NODE_ADDRESS), ("203.0.113.0/24",)),
        (("192.0.2.0/24",), a_node(NODE_ADDRESS), ("192.0.2.0/24", "198.51.100.9/32")),
        (("192.0.2.0/24",), a_node(NODE_ADDRESS, name="n2"), ("192.0.2.0/24",)),
        (("192.0.2.0/24",), a_node("10.0.0.1", NODE_ADDRESS), ("192.0.2.0/24",)),
        (("203.0.113.0/24", "0.0.0.0/0"), None, None),
        (("203.0.113.0/24", "::/0"), None, ("203.0.113.0/24",)),
        (("2001:db8::/32",), None, None),
    ],
)
def test_who_may_use_the_load_balancer_addresses(ranges, node, sources):
    service = a_service(load_balancer_ips=("198.51.100.9",), sources=ranges)
    found = entry(service, *([node] if node else []))

    assert found.sources == (None if sources is None else networks(*sources))


def test_a_node_change_recompiles_only_what_depends_on_it():
    zoned = an_endpoint(A, zones=["a"]), an_endpoint(B, zones=["b"])
    compiler = compiled(
        a_service("plain", cluster_ips=("10.96.0.2",)),
        a_service("zoned", cluster_ips=("10.96.0.3",)),
        a_service(
            "ranged",
            cluster_ips=("10.96.0.4",),
            load_balancer_ips=("198.51.100.9",),
            sources=("192.0.2.0/24",),
        ),
        a_slice(A, name="1", service="plain"),
        a_slice(*zoned, name="2", service="zoned"),
        a_node(zone="b"),
    )

    def changed_by(node):
        changed = compiler.apply([Upserted(node)]).get(V4)
        return {k.name for k in changed.service_ports} if changed else set()

    assert changed_by(a_node(zone="a")) == {"zoned"}
    assert changed_by(a_node(NODE_ADDRESS, zone="a")) == {"ranged"}
    assert changed_by(a_node(NODE_ADDRESS, zone="b")) == {"zoned"}
    assert changed_by(a_node(NODE_ADDRESS, zone="c", name="n2")) == set()
    gone = compiler.apply([Deleted(Kind.NODE, ObjectKey("", HERE))])
    assert {k.name for k in gone[V4].service_ports} == {"zoned", "ranged"}


def test_service_cidrs_are_followed_at_once():
    compiler = compiled(a_service())

    changed = compiler.apply([Upserted(a_cidr("10.96.0.0/16"))])
    assert changed[V4].rules.service_cidrs == networks("10.96.0.0/16")
    assert not changed[V4].service_ports
    assert V6 not in changed


def test_only_the_wanted_families_are_compiled():
    compiler = Compiler(Settings(HERE), [V6])
    changes = compiler.apply(listed(a_service()))

    assert set(changes) == set(compiler.tables) == {V6}
