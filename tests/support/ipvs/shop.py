"""A forwarding table in which ipvs mode finds something for each kind of object that it has."""

from __future__ import annotations

from dataclasses import replace

from kproxy.core.addresses import Family, canonical_network
from kproxy.core.objects import ObjectKey, Protocol
from kproxy.core.table import ForwardingTable, HealthCheck, Use, Via, Vip
from tests.support.iptables.applied import changes, rules, service_port

LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
SOURCES = {
    Family.IPV4: ("198.51.100.0/24", "0.0.0.0/1"),
    Family.IPV6: ("2001:db8:7::/48", "8000::/1"),
}


def shop(family: Family) -> ForwardingTable:
    """Return it: with each protocol, affinity, both lists of endpoints, sources, and refusals."""
    ports = [service_port(family, n, endpoints=(2, 3), protocol=p) for n, p in enumerate(Protocol)]
    local = service_port(family, 5, endpoints=(2, 3, 4), affinity_timeout_s=60)
    local = replace(
        local,
        frontends=(*local.frontends, Vip(Via.LOAD_BALANCER, LOAD_BALANCER[family], 443)),
        external=Use.LOCAL_TARGETS,
        external_local=True,
        local_targets=tuple(target for target in local.targets if target.local),
        sources=tuple(map(canonical_network, SOURCES[family])),
    )
    dropped = replace(service_port(family, 8, endpoints=(3,)), internal=Use.DROP)
    sticky = service_port(family, 6, endpoints=(2, 3), affinity_timeout_s=10800)
    found = changes(
        family, *ports, service_port(family, 7), local, sticky, dropped, rules=rules(family)
    )
    checks = {ObjectKey("shop", "a"): HealthCheck(32000, 1)}
    table = ForwardingTable(family, rules(family))
    table.apply(replace(found, health_checks=checks))
    return table
