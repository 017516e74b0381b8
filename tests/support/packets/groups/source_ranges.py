"""loadBalancerSourceRanges."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import (
    CLIENT,
    CLIENT2,
    FAR1,
    FAR_CLIENT,
    NODE,
    NODE_SECOND,
    NODE_VIP,
    POD1,
    POD2,
    POD3,
)
from tests.support.packets.objects import endpoint_slice, node, port, service, slice_port, vip
from tests.support.packets.table import (
    DROP,
    PASS,
    REJECT,
    SCTP,
    UDP,
    Case,
    Group,
    forward,
    masquerade,
)

_on = f"{POD1}:8080"
_protocols = (
    slice_port("tcp", 8080),
    slice_port("udp", 8080, "UDP"),
    slice_port("sctp", 8080, "SCTP"),
)


def _balanced(name: str, cluster_ip: str, address: str, ranges: list[str], **spec: object):
    return service(
        name,
        cluster_ip,
        load_balancer=(vip(address),),
        loadBalancerSourceRanges=ranges,
        **spec,
    )


_objects = (
    node(),
    service(
        "one",
        "10.96.0.130",
        port(80, name="tcp", node_port=30130),
        port(80, name="udp", protocol="UDP", node_port=30130),
        port(80, name="sctp", protocol="SCTP", node_port=30130),
        load_balancer=(vip("203.0.113.160"),),
        externalIPs=["203.0.113.161"],
        loadBalancerSourceRanges=["203.0.113.5/32"],
    ),
    endpoint_slice("one", POD1, ports=_protocols),
    _balanced("network", "10.96.0.131", "203.0.113.162", [" 203.0.113.0/26 ", "10.1.0.13/32"]),
    endpoint_slice("network", POD1),
    _balanced("zero", "10.96.0.132", "203.0.113.163", ["203.0.113.5/32", "0.0.0.0/0"]),
    endpoint_slice("zero", POD1),
    _balanced("empty", "10.96.0.133", "203.0.113.164", ["203.0.113.5/32", "192.0.2.10/32"]),
    _balanced(
        "far",
        "10.96.0.134",
        "203.0.113.165",
        ["203.0.113.5/32", "192.0.2.10/32", "10.1.0.13/32"],
        externalTrafficPolicy="Local",
    ),
    endpoint_slice("far", FAR1),
    _balanced(
        "local", "10.96.0.135", "203.0.113.166", ["203.0.113.5/32"], externalTrafficPolicy="Local"
    ),
    endpoint_slice("local", POD1, FAR1),
)

_bound = (
    node(),
    _balanced("admitted", "10.96.0.136", NODE_VIP, ["192.0.2.0/24"]),
    endpoint_slice("admitted", POD1),
)
_bound_elsewhere = (
    node(),
    _balanced("not-admitted", "10.96.0.136", NODE_VIP, ["203.0.113.5/32"]),
    endpoint_slice("not-admitted", POD1),
)

GROUPS = (
    Group(
        "source ranges",
        _objects,
        (
            Case("inside", CLIENT, "203.0.113.160:80", masquerade(_on)),
            Case("outside", CLIENT2, "203.0.113.160:80", DROP),
            Case("inside, UDP", CLIENT, "203.0.113.160:80", masquerade(_on), UDP),
            Case("outside, UDP", CLIENT2, "203.0.113.160:80", DROP, UDP),
            Case("outside, SCTP", CLIENT2, "203.0.113.160:80", DROP, SCTP),
            Case("a local pod is filtered too", POD3, "203.0.113.160:80", DROP),
            Case("an endpoint is filtered too", POD1, "203.0.113.160:80", DROP),
            Case("a far pod is filtered too", FAR_CLIENT, "203.0.113.160:80", DROP),
            Case("the node is filtered too", NODE, "203.0.113.160:80", DROP),
            Case("the node is filtered too, UDP", NODE, "203.0.113.160:80", DROP, UDP),
            Case("the node's second address", NODE_SECOND, "203.0.113.160:80", DROP),
            Case("NodePorts are not filtered", CLIENT2, f"{NODE}:30130", masquerade(_on)),
            Case("external IPs are not filtered", CLIENT2, "203.0.113.161:80", masquerade(_on)),
            Case("clusterIPs are not filtered", CLIENT2, "10.96.0.130:80", masquerade(_on)),
            Case("clusterIPs are not filtered for pods", POD3, "10.96.0.130:80", forward(_on)),
            Case("another port is not filtered", CLIENT2, "203.0.113.160:81", PASS),
            Case("inside a network", CLIENT, "203.0.113.162:80", masquerade(_on)),
            Case("outside a network", CLIENT2, "203.0.113.162:80", DROP),
            Case("inside the second range", POD3, "203.0.113.162:80", masquerade(_on)),
            Case("outside both ranges", POD2, "203.0.113.162:80", DROP),
            Case("a range of length zero admits all", CLIENT2, "203.0.113.163:80", masquerade(_on)),
            Case("also pods", POD3, "203.0.113.163:80", masquerade(_on)),
        ),
    ),
    Group(
        "source ranges come before endpoints",
        _objects,
        (
            Case("inside, no endpoint", CLIENT, "203.0.113.164:80", REJECT),
            Case("outside, no endpoint", CLIENT2, "203.0.113.164:80", DROP),
            Case("a pod outside, no endpoint", POD3, "203.0.113.164:80", DROP),
            Case("the node inside, no endpoint", NODE, "203.0.113.164:80", REJECT),
            Case("the node outside, no endpoint", NODE_SECOND, "203.0.113.164:80", DROP),
            Case("inside, no local endpoint", CLIENT, "203.0.113.165:80", DROP),
            Case("outside, no local endpoint", CLIENT2, "203.0.113.165:80", DROP),
            Case(
                "a pod inside is short-circuited", POD3, "203.0.113.165:80", forward(f"{FAR1}:8080")
            ),
            Case("a pod outside is not", POD1, "203.0.113.165:80", DROP),
            Case(
                "the node inside is short-circuited",
                NODE,
                "203.0.113.165:80",
                masquerade(f"{FAR1}:8080"),
            ),
            Case("the node outside is not", NODE_SECOND, "203.0.113.165:80", DROP),
            Case("policy Local, inside", CLIENT, "203.0.113.166:80", forward(_on)),
            Case("policy Local, outside", CLIENT2, "203.0.113.166:80", DROP),
            Case("policy Local, a pod outside", POD3, "203.0.113.166:80", DROP),
        ),
    ),
    Group(
        "source ranges that contain the node",
        _bound,
        (
            Case("the node", NODE, f"{NODE_VIP}:80", masquerade(_on)),
            Case("the VIP as the source", NODE_VIP, f"{NODE_VIP}:80", masquerade(_on)),
            Case("an outsider", CLIENT, f"{NODE_VIP}:80", DROP),
            Case("another address of the node", NODE_SECOND, f"{NODE_VIP}:80", DROP),
        ),
    ),
    Group(
        "source ranges that do not contain the node",
        _bound_elsewhere,
        (
            Case("the node", NODE, f"{NODE_VIP}:80", DROP),
            Case("the VIP as the source", NODE_VIP, f"{NODE_VIP}:80", DROP),
            Case("inside", CLIENT, f"{NODE_VIP}:80", masquerade(_on)),
        ),
    ),
    Group(
        "source ranges that contain the Node's address, but not bindAddress",
        _bound,
        (
            Case("the node", NODE, f"{NODE_VIP}:80", masquerade(_on)),
            Case("the VIP as the source", NODE_VIP, f"{NODE_VIP}:80", DROP),
        ),
        settings={"bind_address": NODE_SECOND},
    ),
    Group(
        "source ranges of the other family only",
        (
            node(),
            _balanced("other", "10.96.0.137", "203.0.113.167", ["2001:db8:113::5/128"]),
            endpoint_slice("other", POD1),
        ),
        (Case("no filter", CLIENT2, "203.0.113.167:80", masquerade(_on)),),
        family=Family.IPV4,
    ),
    Group(
        "source ranges of the other family only, over IPv6",
        (
            node("2001:db8:2::10"),
            _balanced("other", "fd00:96::137", "2001:db8:113::167", ["203.0.113.5/32"]),
            endpoint_slice("other", "fd00:1::11", address_type="IPv6"),
        ),
        (
            Case(
                "no filter",
                "2001:db8:113::77",
                "[2001:db8:113::167]:80",
                masquerade("[fd00:1::11]:8080"),
            ),
        ),
        family=Family.IPV6,
    ),
    Group(
        "source ranges with length zero in the other family",
        (
            node(),
            _balanced("mixed", "10.96.0.138", "203.0.113.168", ["203.0.113.5/32", "::/0"]),
            endpoint_slice("mixed", POD1),
        ),
        (
            Case("inside", CLIENT, "203.0.113.168:80", masquerade(_on)),
            Case("outside", CLIENT2, "203.0.113.168:80", DROP),
        ),
        family=Family.IPV4,
    ),
)
