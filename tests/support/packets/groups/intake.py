"""Objects that are none of our business, and how addresses are read."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import CLIENT, FAR1, NODE, NODE_DNS, POD1, POD2, POD3, SERVICE_CIDR
from tests.support.packets.objects import (
    endpoint_slice,
    node,
    port,
    service,
    service_cidr,
    slice_port,
)
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

_OTHER_PROXY = {"service.kubernetes.io/service-proxy-name": "other"}
_HEADLESS = {"service.kubernetes.io/headless": ""}

_not_ours = (
    service("headless", "None"),
    endpoint_slice("headless", POD1),
    service("elsewhere", "10.96.0.60", type="ExternalName", externalName="example.com"),
    endpoint_slice("elsewhere", POD1),
    service("other-proxy", "10.96.0.61", port(80, node_port=30061), labels=_OTHER_PROXY),
    endpoint_slice("other-proxy", POD1),
    service("hidden", "10.96.0.62", port(80, node_port=30062)),
    endpoint_slice("hidden", POD1, labels=_HEADLESS),
    service("half-hidden", "10.96.0.63"),
    endpoint_slice("half-hidden", POD1, labels=_HEADLESS, suffix="a"),
    endpoint_slice("half-hidden", FAR1, suffix="b"),
    service("unnamed", "10.96.0.64"),
    endpoint_slice("unnamed", POD1, labels={"kubernetes.io/service-name": ""}),
    service("numberless", "10.96.0.65"),
    endpoint_slice("numberless", POD1, ports=({"name": "", "protocol": "TCP"},)),
    service("nameless", "10.96.0.66"),
    endpoint_slice("nameless", POD1, ports=({"port": 8080, "protocol": "TCP"},)),
    service("by-name", "10.96.0.67"),
    endpoint_slice("by-name", "pod.example.com", address_type="FQDN"),
    service("other-protocol", "10.96.0.68"),
    endpoint_slice("other-protocol", POD1, ports=(slice_port("", 8080, "UDP"),)),
)
_web = (service("web", "10.96.0.10"), endpoint_slice("web", POD1))

_dual_stack = (
    node("192.0.2.10", "2001:db8:2::10"),
    service(
        "dual",
        "fd00:96::70",
        port(80, node_port=30070),
        clusterIPs=["fd00:96::70", "10.96.0.70"],
        ipFamilies=["IPv6", "IPv4"],
        externalIPs=["2001:db8:113::101", "203.0.113.101"],
    ),
    endpoint_slice("dual", "fd00:1::11", address_type="IPv6", suffix="six"),
    endpoint_slice("dual", POD2, suffix="four"),
    service("only-six", "fd00:96::71", port(80, node_port=30071)),
    endpoint_slice("only-six", "fd00:1::11", address_type="IPv6", suffix="six"),
    endpoint_slice("only-six", POD2, suffix="four"),
)

GROUPS = (
    Group(
        "not ours",
        (node(), *_not_ours),
        (
            Case("ExternalName, even with a clusterIP", POD3, "10.96.0.60:80", PASS),
            Case("another proxy's clusterIP", POD3, "10.96.0.61:80", PASS),
            Case("another proxy's clusterIP from the node", NODE, "10.96.0.61:80", PASS),
            Case("another proxy's NodePort", CLIENT, f"{NODE}:30061", PASS),
            Case("a slice labelled headless is invisible", POD3, "10.96.0.62:80", REJECT),
            Case("also for its NodePort", CLIENT, f"{NODE}:30062", REJECT),
            Case("but not another slice", POD3, "10.96.0.63:80", forward(f"{FAR1}:8080")),
            Case("a slice without a Service's name", POD3, "10.96.0.64:80", REJECT),
            Case("a slice port without number", POD3, "10.96.0.65:80", REJECT),
            Case(
                "a slice port's name is empty by default",
                POD3,
                "10.96.0.66:80",
                forward(f"{POD1}:8080"),
            ),
            Case("a slice of host names", POD3, "10.96.0.67:80", REJECT),
            Case("a slice port of another protocol", POD3, "10.96.0.68:80", REJECT),
            Case("a pod's own address", CLIENT, f"{POD1}:8080", PASS),
            Case("pod to pod", POD3, f"{POD1}:8080", PASS),
            Case("pod to a far pod", POD3, f"{FAR1}:8080", PASS, UDP),
            Case("the node to a pod", NODE, f"{POD1}:8080", PASS),
            Case("a pod to the outside", POD1, f"{CLIENT}:8080", PASS),
            Case("the node to the outside", NODE, f"{CLIENT}:8080", PASS, UDP),
            Case("a port of the node itself", CLIENT, f"{NODE}:8080", PASS),
            Case("a pod to the node itself", POD1, f"{NODE}:8080", PASS, SCTP),
        ),
    ),
    Group(
        "unallocated addresses without a ServiceCIDR",
        (node(), *_web),
        (
            Case("pass", POD3, "10.96.0.200:80", PASS),
            Case("pass from outside", CLIENT, "10.96.0.200:80", PASS, UDP),
            Case("pass from the node", NODE, "10.96.0.200:80", PASS, SCTP),
            Case("an unknown port of a clusterIP", POD3, "10.96.0.10:81", REJECT),
        ),
    ),
    Group(
        "unallocated addresses in a ServiceCIDR",
        (node(), service_cidr(SERVICE_CIDR), *_web),
        (
            Case("from a pod", POD3, "10.96.0.200:80", DROP),
            Case("from outside", CLIENT, "10.96.0.200:80", DROP),
            Case("from the node", NODE, "10.96.0.200:80", DROP),
            Case("UDP", POD3, "10.96.0.200:53", DROP, UDP),
            Case("UDP from the node", NODE, "10.96.0.200:53", DROP, UDP),
            Case("SCTP", CLIENT, "10.96.0.200:53", DROP, SCTP),
            Case("a clusterIP", POD3, "10.96.0.10:80", forward(f"{POD1}:8080")),
            Case("an unknown port of a clusterIP", POD3, "10.96.0.10:81", REJECT),
            Case("an unknown port from outside", CLIENT, "10.96.0.10:81", REJECT),
            Case("an unknown port from the node", NODE, "10.96.0.10:81", REJECT),
            Case("another protocol of a clusterIP", POD3, "10.96.0.10:80", REJECT, UDP),
            Case("another protocol from the node", NODE, "10.96.0.10:80", REJECT, UDP),
            Case("SCTP to a clusterIP", CLIENT, "10.96.0.10:80", REJECT, SCTP),
            Case("outside the ServiceCIDR", POD3, "10.97.0.9:80", PASS),
            Case("an address that the node has", POD3, f"{NODE_DNS}:53", PASS, UDP),
            Case("the node to an address that it has", NODE, f"{NODE_DNS}:53", PASS),
        ),
    ),
    Group(
        "a clusterIP that the node has",
        (
            node(),
            service_cidr(SERVICE_CIDR),
            service("dns", NODE_DNS, port(53, protocol="UDP")),
            endpoint_slice("dns", POD1, ports=(slice_port("", 5353, "UDP"),)),
        ),
        (
            Case("the Service's port", POD3, f"{NODE_DNS}:53", forward(f"{POD1}:5353"), UDP),
            Case("another port is the node's own", POD3, f"{NODE_DNS}:8080", PASS),
            Case("also for the node", NODE, f"{NODE_DNS}:8080", PASS),
        ),
    ),
    Group(
        "dual stack over IPv4",
        _dual_stack,
        (
            Case("the clusterIP of this family", POD3, "10.96.0.70:80", forward(f"{POD2}:8080")),
            Case("the NodePort", CLIENT, f"{NODE}:30070", masquerade(f"{POD2}:8080")),
            Case("the external IP", CLIENT, "203.0.113.101:80", masquerade(f"{POD2}:8080")),
            Case("no clusterIP of this family: no NodePort", CLIENT, f"{NODE}:30071", PASS),
        ),
        family=Family.IPV4,
    ),
    Group(
        "dual stack over IPv6",
        _dual_stack,
        (
            Case(
                "the clusterIP of this family",
                "fd00:1::13",
                "[fd00:96::70]:80",
                masquerade("[fd00:1::11]:8080"),
            ),
            Case(
                "the NodePort",
                "2001:db8:113::5",
                "[2001:db8:2::10]:30070",
                masquerade("[fd00:1::11]:8080"),
            ),
            Case(
                "the external IP",
                "2001:db8:113::5",
                "[2001:db8:113::101]:80",
                masquerade("[fd00:1::11]:8080"),
            ),
            Case(
                "the NodePort of a single-stack Service",
                "2001:db8:113::5",
                "[2001:db8:2::10]:30071",
                masquerade("[fd00:1::11]:8080"),
            ),
        ),
        settings={"cluster_cidrs": ("fd00:2::/48",)},
        family=Family.IPV6,
    ),
    Group(
        "addresses with leading zeros",
        (
            node(),
            service("sloppy", "010.096.000.072", port(80, node_port=30072)),
            endpoint_slice("sloppy", {"addresses": ["010.001.000.011"]}),
        ),
        (
            Case("clusterIP", POD3, "10.96.0.72:80", forward(f"{POD1}:8080")),
            Case("NodePort", CLIENT, f"{NODE}:30072", masquerade(f"{POD1}:8080")),
        ),
        family=Family.IPV4,
    ),
)
