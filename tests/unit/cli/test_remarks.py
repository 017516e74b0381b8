"""What is said once about the limits of a configuration."""

import ipaddress
from dataclasses import replace

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind
from kproxy.core.parse import from_builtins
from kproxy.core.settings import LocalhostNodePorts, Settings
from kproxy.core.store import Connected, Replaced
from kproxy.proxy.remarks import (
    conflict_lines,
    in_force_line,
    limit_lines,
    overlap_lines,
    service_lines,
)
from kproxy.run.loop.status import FamilyStatus
from tests.support.core.things import a_cidr, a_node, a_service, listed, networks

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
}
RECOGNISED = Settings("n", cluster_cidrs=(ipaddress.ip_network("10.1.0.0/16"),))


def lines(settings, *services):
    compiler = Compiler(settings)
    objects = tuple(from_builtins(service) for service in services)
    compiler.apply([Replaced(Kind.SERVICE, objects), Replaced(Kind.ENDPOINT_SLICE, ())])
    return list(limit_lines(settings, compiler.tables))


def test_pods_that_cannot_be_recognised_are_said_where_services_are():
    said = lines(Settings("n", localhost_ipv4=LocalhostNodePorts.NEVER), SERVICE)
    assert [line[:5] for line in said] == ["IPv4:"]
    assert "clusterCIDR names no IPv4 network" in said[0]


def test_nothing_is_said_where_pods_are_recognised_and_localhost_is_off():
    assert lines(replace(RECOGNISED, localhost_ipv4=LocalhostNodePorts.NEVER), SERVICE) == []


@pytest.mark.parametrize(("ipv6", "said"), [("NEVER", 1), ("LISTED", 0)])
def test_it_is_said_where_the_ipv6_loopback_cannot_be_served(ipv6, said):
    settings = replace(RECOGNISED, localhost_ipv6=LocalhostNodePorts[ipv6])
    assert len(lines(settings)) == said
    assert all("::1" in line for line in lines(settings))


@pytest.mark.parametrize(
    ("listed_addresses", "where"),
    [((), "127.0.0.0/8"), (("127.0.2.0/28", "127.0.9.1/32"), "127.0.2.0/28, 127.0.9.1/32")],
)
def test_the_part_of_loopback_that_is_served_is_named(listed_addresses, where):
    settings = replace(RECOGNISED, node_port_addresses=networks(*listed_addresses))
    assert lines(settings) == [
        f"NodePorts answer on {where} and not on ::1, from where the kernel routes nothing"
    ]


def test_what_is_in_the_kernel_is_told_with_how_much_of_it_is_not_as_asked():
    compiler = Compiler(RECOGNISED)
    compiler.apply(listed(a_service(), a_service("api", cluster_ips=("10.96.0.2",))))
    tables = compiler.tables
    key = next(iter(tables[Family.IPV4].service_ports))
    held = [FamilyStatus(family) for family in Family]
    counts = "2 Services with 2 ports and 0 endpoints in the kernel for"
    assert in_force_line(tables, held) == f"{counts} IPv4 and IPv6"
    lacking = FamilyStatus(Family.IPV4, unheld={key: "refused"})
    assert in_force_line(tables, [lacking]) == f"{counts} IPv4, 1 of the ports not as asked"


def test_the_ipv6_loopback_is_no_topic_without_ipv6():
    compiler = Compiler(RECOGNISED, [Family.IPV4])
    assert list(limit_lines(RECOGNISED, compiler.tables)) == []


def test_what_shares_addresses_with_a_service_cidr_is_named_in_a_line_for_each_range():
    compiler = Compiler(Settings("n"))
    ranges = (a_cidr("192.168.0.0/16", "fd00:96::/112"), a_cidr("10.96.0.0/16", name="more"))
    neighbours = [a_node(f"192.168.10.{number}", name=f"n{number}") for number in range(1, 7)]
    near = Connected(frozenset(networks("fd00::/16", "192.168.20.0/24")))
    compiler.apply([near, *listed(a_service(), *ranges, *neighbours)])

    then = (
        ": what no Service has there is let through, and a Service that is given an address there "
        "hides who has it"
    )
    named = ", ".join(f"192.168.10.{number} (Node n{number})" for number in range(1, 5))
    assert list(overlap_lines(compiler.tables)) == [
        f"ServiceCIDR 192.168.0.0/16 overlaps {named}, 3 more{then}",
        "ServiceCIDR fd00:96::/112 overlaps fd00::/16 (this node is directly connected to it)"
        + then,
    ]
    compiler.apply([Connected(frozenset()), Replaced(Kind.NODE, ())])
    assert list(overlap_lines(compiler.tables)) == []


def test_a_load_balancer_address_that_is_left_out_is_said():
    services = a_service("web", unusable=("127.0.0.1", "::1")), a_service("api")
    assert list(service_lines(services)) == [
        f"Service shop/web: the load-balancer address {own} must not be a zero, loopback or "
        "link-local multicast address; going on without it"
        for own in ("127.0.0.1", "::1")
    ]


def test_of_thousands_of_conflicts_a_few_are_named_and_the_rest_is_counted():
    compiler = Compiler(Settings("n"))
    spec = {**SERVICE["spec"], "externalIPs": ["192.0.2.7"]}
    made = [
        from_builtins(
            {
                **SERVICE,
                "metadata": {"name": f"s{number:03}"},
                "spec": {**spec, "clusterIP": f"10.96.1.{number}"},
            }
        )
        for number in range(200)
    ]
    compiler.apply([Replaced(Kind.SERVICE, tuple(made)), Replaced(Kind.ENDPOINT_SLICE, ())])

    *named, rest = conflict_lines(compiler.conflicts())

    assert len(named) == 50
    assert named[0] == (
        "192.0.2.7:80 TCP is claimed twice: default/s000 has it, default/s001 does not"
    )
    assert rest == "149 more frontends are claimed twice"
    assert list(conflict_lines([])) == []
