"""clusterIP traffic: who is masqueraded, hairpin, protocols, and how local pods are told."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import (
    CLIENT,
    CLUSTER_CIDR,
    FAR1,
    FAR_CLIENT,
    NODE,
    NODE_POD_SIDE,
    NODE_SECOND,
    POD1,
    POD2,
    POD3,
)
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
    REJECT,
    SCTP,
    TCP,
    UDP,
    Case,
    Group,
    forward,
    masquerade,
)

WEB = "10.96.0.10:80"
WEB_ON = (f"{POD1}:8080", f"{FAR1}:8080")
SOLO = "10.96.0.11:80"
LOCAL_ONLY = "203.0.113.110:80"

_web = (
    service("web", "10.96.0.10"),
    endpoint_slice("web", POD1, FAR1),
    service("solo", "10.96.0.11"),
    endpoint_slice("solo", POD1),
)

_dns_ports = (
    port(53, name="dns-tcp"),
    port(53, name="dns", protocol="UDP"),
    port(53, name="dns-sctp", protocol="SCTP"),
)
_dns = (
    service("dns", "10.96.0.12", *_dns_ports),
    endpoint_slice("dns", POD1, ports=(slice_port("dns-tcp", 5353),), suffix="tcp"),
    endpoint_slice("dns", POD2, ports=(slice_port("dns", 5353, "UDP"),), suffix="udp"),
    endpoint_slice("dns", POD3, ports=(slice_port("dns-sctp", 5353, "SCTP"),), suffix="sctp"),
)

_named = (
    service("named", "10.96.0.13", port(80, name="http"), port(81, name="metrics")),
    endpoint_slice(
        "named", POD1, ports=(slice_port("http", 8080), slice_port("metrics", 9090)), suffix="a"
    ),
    endpoint_slice("named", POD2, ports=(slice_port("http", 8081),), suffix="b"),
)

# A Service whose Local policy shows who counts as a local pod: it is short-circuited to FAR1.
_local_only = (
    service(
        "local-only",
        "10.96.0.14",
        port(80, node_port=30014),
        load_balancer=({"ip": "203.0.113.110"},),
        externalTrafficPolicy="Local",
    ),
    endpoint_slice("local-only", POD2, FAR1),
)
_everywhere = (f"{POD2}:8080", f"{FAR1}:8080")
_here = (f"{POD2}:8080",)

GROUPS = (
    Group(
        "clusterIP",
        (node(), *_web),
        (
            Case("an outside client is masqueraded", CLIENT, WEB, masquerade(*WEB_ON)),
            Case("a local pod keeps its address", POD3, WEB, forward(*WEB_ON)),
            Case(
                "a pod of another node is in clusterCIDR and keeps its address",
                FAR_CLIENT,
                WEB,
                forward(*WEB_ON),
            ),
            Case("the node is masqueraded", NODE, WEB, masquerade(*WEB_ON)),
            Case("the node's second address is masqueraded", NODE_SECOND, WEB, masquerade(*WEB_ON)),
            Case(
                "an address of the node inside clusterCIDR counts as a pod's",
                NODE_POD_SIDE,
                WEB,
                forward(*WEB_ON),
            ),
            Case("an endpoint may meet itself among others", POD1, WEB, forward(*WEB_ON)),
            Case("an endpoint meets itself alone", POD1, SOLO, masquerade(f"{POD1}:8080")),
            Case("another pod to a single endpoint", POD2, SOLO, forward(f"{POD1}:8080")),
        ),
    ),
    Group(
        "protocols share a port number",
        (node(), *_dns),
        (
            Case("TCP", POD3, "10.96.0.12:53", forward(f"{POD1}:5353"), TCP),
            Case("UDP", POD3, "10.96.0.12:53", forward(f"{POD2}:5353"), UDP),
            Case("SCTP", POD1, "10.96.0.12:53", forward(f"{POD3}:5353"), SCTP),
            Case("UDP of the node", NODE, "10.96.0.12:53", masquerade(f"{POD2}:5353"), UDP),
            Case("SCTP of the node", NODE, "10.96.0.12:53", masquerade(f"{POD3}:5353"), SCTP),
            Case("UDP from outside", CLIENT, "10.96.0.12:53", masquerade(f"{POD2}:5353"), UDP),
            Case("SCTP from outside", CLIENT, "10.96.0.12:53", masquerade(f"{POD3}:5353"), SCTP),
            Case("UDP hairpin", POD2, "10.96.0.12:53", masquerade(f"{POD2}:5353"), UDP),
            Case("SCTP hairpin", POD3, "10.96.0.12:53", masquerade(f"{POD3}:5353"), SCTP),
        ),
    ),
    Group(
        "ports are matched by name",
        (node(), *_named),
        (
            Case(
                "slices may map one name to different numbers",
                POD3,
                "10.96.0.13:80",
                forward(f"{POD1}:8080", f"{POD2}:8081"),
            ),
            Case(
                "a slice without the name adds nothing",
                POD3,
                "10.96.0.13:81",
                forward(f"{POD1}:9090"),
            ),
        ),
    ),
    Group(
        "masqueradeAll",
        (node(), *_web),
        (
            Case("a local pod", POD3, WEB, masquerade(*WEB_ON)),
            Case("an endpoint among others", POD1, WEB, masquerade(*WEB_ON)),
            Case("an outside client", CLIENT, WEB, masquerade(*WEB_ON)),
            Case("the node", NODE, WEB, masquerade(*WEB_ON)),
        ),
        settings={"masquerade_all": True},
    ),
    Group(
        "local pods by NodeCIDR",
        (node(), *_web, *_local_only),
        (
            Case("a local pod", POD3, WEB, forward(*WEB_ON)),
            Case("a pod of another node is not local", FAR_CLIENT, WEB, masquerade(*WEB_ON)),
            Case("the node", NODE, WEB, masquerade(*WEB_ON)),
            Case("a local pod is short-circuited", POD1, LOCAL_ONLY, forward(*_everywhere)),
            Case("a pod of another node is not", FAR_CLIENT, LOCAL_ONLY, forward(*_here)),
        ),
        settings={"detect_local": "NodeCIDR"},
    ),
    Group(
        "local pods by NodeCIDR, which the Node lacks",
        (node(pod_cidrs=()), *_web, *_local_only),
        (
            Case("an outside client keeps its address", CLIENT, WEB, forward(*WEB_ON)),
            Case("a local pod is not short-circuited", POD1, LOCAL_ONLY, forward(*_here)),
        ),
        settings={"detect_local": "NodeCIDR"},
    ),
    Group(
        "local pods by BridgeInterface",
        (node(), *_web, *_local_only),
        (
            Case("a pod on the bridge", POD3, WEB, forward(*WEB_ON)),
            Case("a pod beside the bridge", POD2, WEB, masquerade(*WEB_ON)),
            Case("an outside client", CLIENT, WEB, masquerade(*WEB_ON)),
            Case("the node has no input interface", NODE, WEB, masquerade(*WEB_ON)),
            Case("a pod on the bridge is short-circuited", POD3, LOCAL_ONLY, forward(*_everywhere)),
            Case("a pod beside the bridge is not", POD1, LOCAL_ONLY, forward(*_here)),
            Case("nor over the NodePort", POD1, f"{NODE}:30014", forward(*_here)),
            Case("the node is", NODE, LOCAL_ONLY, masquerade(*_everywhere)),
        ),
        settings={"detect_local": "BridgeInterface", "bridge_interface": "cbr0"},
    ),
    Group(
        "local pods by InterfaceNamePrefix",
        (node(), *_web, *_local_only),
        (
            Case("a pod behind the prefix", POD2, WEB, forward(*WEB_ON)),
            Case("a pod behind another interface", POD3, WEB, masquerade(*WEB_ON)),
            Case("an outside client", CLIENT, WEB, masquerade(*WEB_ON)),
            Case("the node", NODE, WEB, masquerade(*WEB_ON)),
            Case(
                "a pod behind the prefix is short-circuited",
                POD1,
                LOCAL_ONLY,
                forward(*_everywhere),
            ),
            Case("a pod behind another interface is not", POD3, LOCAL_ONLY, forward(*_here)),
            Case("hairpin", POD1, SOLO, masquerade(f"{POD1}:8080")),
        ),
        settings={"detect_local": "InterfaceNamePrefix", "interface_name_prefix": "pod"},
    ),
    Group(
        "local pods cannot be told",
        (node(), *_web, *_local_only),
        (
            Case("an outside client keeps its address", CLIENT, WEB, forward(*WEB_ON)),
            Case("a pod keeps its address", POD3, WEB, forward(*WEB_ON)),
            Case("the node keeps its address", NODE, WEB, forward(*WEB_ON)),
            Case("an endpoint that meets itself", POD1, SOLO, masquerade(f"{POD1}:8080")),
            Case("a pod is not short-circuited", POD3, LOCAL_ONLY, forward(*_here)),
            Case("the node still is", NODE, LOCAL_ONLY, masquerade(*_everywhere)),
        ),
        settings={"cluster_cidrs": ()},
    ),
    Group(
        "a link-local clusterIP",
        (
            node(),
            service_cidr("169.254.64.0/18"),
            service("web", "169.254.64.10"),
            endpoint_slice("web", POD1),
        ),
        (
            Case("a pod", POD3, "169.254.64.10:80", forward(f"{POD1}:8080")),
            Case("the node", NODE, "169.254.64.10:80", masquerade(f"{POD1}:8080")),
            Case("an outside client", CLIENT, "169.254.64.10:80", masquerade(f"{POD1}:8080")),
            Case("its other port", NODE, "169.254.64.10:81", REJECT),
            Case("an unallocated address", POD3, "169.254.64.11:80", DROP),
        ),
        family=Family.IPV4,
    ),
    Group(
        "clusterCIDR of the other family only",
        (
            node("2001:db8:2::10"),
            service("web", "fd00:96::10"),
            endpoint_slice("web", "fd00:1::11", address_type="IPv6"),
        ),
        (
            Case(
                "an outside client keeps its address",
                "2001:db8:113::5",
                "[fd00:96::10]:80",
                forward("[fd00:1::11]:8080"),
            ),
        ),
        settings={"cluster_cidrs": (CLUSTER_CIDR,)},
        family=Family.IPV6,
    ),
)
