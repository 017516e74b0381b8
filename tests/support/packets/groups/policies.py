"""The Local traffic policies and their short-circuits."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import (
    CLIENT,
    CLIENT2,
    FAR1,
    FAR_CLIENT,
    LOOPBACK,
    NODE,
    NODE_DNS,
    NODE_SECOND,
    POD1,
    POD2,
    POD3,
)
from tests.support.packets.objects import (
    draining,
    endpoint_slice,
    node,
    port,
    service,
    slice_port,
    unready,
    vip,
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

_here, _there = f"{POD1}:8080", f"{FAR1}:8080"
_LOCAL = {"internalTrafficPolicy": "Local"}

_internal = (
    service("both", "10.96.0.80", **_LOCAL),
    endpoint_slice("both", POD1, FAR1),
    service("far", "10.96.0.81", **_LOCAL),
    endpoint_slice("far", FAR1),
    service("none", "10.96.0.82", **_LOCAL),
    service("local-draining", "10.96.0.83", **_LOCAL),
    endpoint_slice("local-draining", draining(POD1), FAR1),
    service("local-unready", "10.96.0.84", **_LOCAL),
    endpoint_slice("local-unready", unready(POD1), FAR1),
    service("far-draining", "10.96.0.85", **_LOCAL),
    endpoint_slice("far-draining", draining(FAR1)),
    service("open", "10.96.0.86", port(80, node_port=30086), **_LOCAL),
    endpoint_slice("open", FAR1),
    service("far-udp", "10.96.0.87", port(53, protocol="UDP"), **_LOCAL),
    endpoint_slice("far-udp", FAR1, ports=(slice_port("", 5353, "UDP"),)),
)

_EXTERNAL = {"externalTrafficPolicy": "Local"}
_external = (
    service(
        "both",
        "10.96.0.90",
        port(80, node_port=30090),
        load_balancer=(vip("203.0.113.140"),),
        externalIPs=["203.0.113.141"],
        **_EXTERNAL,
    ),
    endpoint_slice("both", POD1, FAR1),
    service(
        "far",
        "10.96.0.91",
        port(80, name="tcp", node_port=30091),
        port(80, name="udp", protocol="UDP", node_port=30091),
        port(80, name="sctp", protocol="SCTP", node_port=30091),
        load_balancer=(vip("203.0.113.142"),),
        externalIPs=["203.0.113.143"],
        **_EXTERNAL,
    ),
    endpoint_slice(
        "far",
        FAR1,
        ports=(
            slice_port("tcp", 8080),
            slice_port("udp", 8080, "UDP"),
            slice_port("sctp", 8080, "SCTP"),
        ),
    ),
    service(
        "none",
        "10.96.0.92",
        port(80, node_port=30092),
        load_balancer=(vip("203.0.113.144"),),
        externalIPs=["203.0.113.145"],
        **_EXTERNAL,
    ),
    service(
        "draining",
        "10.96.0.93",
        port(80, node_port=30093),
        load_balancer=(vip("203.0.113.146"),),
        **_EXTERNAL,
    ),
    endpoint_slice("draining", draining(POD1), FAR1),
    service("all-local", "10.96.0.94", port(80, node_port=30094), **_EXTERNAL, **_LOCAL),
    endpoint_slice("all-local", FAR1),
    service("external-ip", "10.96.0.95", externalIPs=["203.0.113.147"], **_EXTERNAL),
    endpoint_slice("external-ip", POD2, FAR1),
    service("cached", NODE_DNS, port(80, node_port=30096), **_EXTERNAL, **_LOCAL),
    endpoint_slice("cached", POD1, FAR1),
)

GROUPS = (
    Group(
        "internalTrafficPolicy Local",
        (node(), *_internal),
        (
            Case("a local endpoint", POD3, "10.96.0.80:80", forward(_here)),
            Case("the node", NODE, "10.96.0.80:80", masquerade(_here)),
            Case("an outside client", CLIENT, "10.96.0.80:80", masquerade(_here)),
            Case("a far pod", FAR_CLIENT, "10.96.0.80:80", forward(_here)),
            Case("hairpin", POD1, "10.96.0.80:80", masquerade(_here)),
            Case("only far endpoints", POD3, "10.96.0.81:80", DROP),
            Case("only far endpoints, the node", NODE, "10.96.0.81:80", DROP),
            Case("only far endpoints, from outside", CLIENT, "10.96.0.81:80", DROP),
            Case("only far endpoints, UDP", POD3, "10.96.0.87:53", DROP, UDP),
            Case("only far endpoints, UDP of the node", NODE, "10.96.0.87:53", DROP, UDP),
            Case("no endpoint at all", POD3, "10.96.0.82:80", REJECT),
            Case("no endpoint at all, the node", NODE, "10.96.0.82:80", REJECT),
            Case("a local one is draining", POD3, "10.96.0.83:80", forward(_here)),
            Case("a local one is not ready", POD3, "10.96.0.84:80", DROP),
            Case("a far one is draining", POD3, "10.96.0.85:80", DROP),
            Case("no influence on NodePorts", CLIENT, f"{NODE}:30086", masquerade(_there)),
            Case("clusterIP of the same Service", POD3, "10.96.0.86:80", DROP),
        ),
    ),
    Group(
        "externalTrafficPolicy Local with a local endpoint",
        (node(), *_external),
        (
            Case("NodePort", CLIENT, f"{NODE}:30090", forward(_here)),
            Case("NodePort, the second address", CLIENT2, f"{NODE_SECOND}:30090", forward(_here)),
            Case("load balancer", CLIENT, "203.0.113.140:80", forward(_here)),
            Case("external IP", CLIENT, "203.0.113.141:80", forward(_here)),
            Case("NodePort from a pod", POD3, f"{NODE}:30090", forward(_here, _there)),
            Case("load balancer from a pod", POD3, "203.0.113.140:80", forward(_here, _there)),
            Case("external IP from a pod", POD3, "203.0.113.141:80", forward(_here, _there)),
            Case(
                "an endpoint to its own Service", POD1, "203.0.113.140:80", forward(_here, _there)
            ),
            Case(
                "a far pod is in clusterCIDR",
                FAR_CLIENT,
                "203.0.113.140:80",
                forward(_here, _there),
            ),
            Case("NodePort from the node", NODE, f"{NODE}:30090", masquerade(_here, _there)),
            Case(
                "load balancer from the node", NODE, "203.0.113.140:80", masquerade(_here, _there)
            ),
            Case("external IP from the node", NODE, "203.0.113.141:80", masquerade(_here, _there)),
            Case(
                "NodePort on 127.0.0.1",
                LOOPBACK,
                f"{LOOPBACK}:30090",
                masquerade(_here, _there),
                family=Family.IPV4,
            ),
            Case("clusterIP is not concerned", POD3, "10.96.0.90:80", forward(_here, _there)),
            Case("clusterIP from outside", CLIENT, "10.96.0.90:80", masquerade(_here, _there)),
            Case(
                "NodePort at a clusterIP that the node has",
                CLIENT,
                f"{NODE_DNS}:30096",
                forward(_here),
            ),
            Case("that clusterIP itself", CLIENT, f"{NODE_DNS}:80", masquerade(_here)),
            Case(
                "type ClusterIP with an external IP",
                CLIENT,
                "203.0.113.147:80",
                forward(f"{POD2}:8080"),
            ),
        ),
    ),
    Group(
        "externalTrafficPolicy Local without a local endpoint",
        (node(), *_external),
        (
            Case("NodePort", CLIENT, f"{NODE}:30091", DROP),
            Case("NodePort UDP", CLIENT, f"{NODE}:30091", DROP, UDP),
            Case("NodePort SCTP", CLIENT, f"{NODE}:30091", DROP, SCTP),
            Case("NodePort, the second address", CLIENT, f"{NODE_SECOND}:30091", DROP),
            Case("load balancer", CLIENT, "203.0.113.142:80", DROP),
            Case("load balancer UDP", CLIENT2, "203.0.113.142:80", DROP, UDP),
            Case("load balancer SCTP", CLIENT, "203.0.113.142:80", DROP, SCTP),
            Case("external IP", CLIENT, "203.0.113.143:80", DROP),
            Case("NodePort from a pod", POD3, f"{NODE}:30091", forward(_there)),
            Case("NodePort UDP from a pod", POD3, f"{NODE}:30091", forward(_there), UDP),
            Case("load balancer from a pod", POD3, "203.0.113.142:80", forward(_there)),
            Case("load balancer SCTP from a pod", POD3, "203.0.113.142:80", forward(_there), SCTP),
            Case("external IP from a pod", POD3, "203.0.113.143:80", forward(_there)),
            Case("NodePort from the node", NODE, f"{NODE}:30091", masquerade(_there)),
            Case("load balancer from the node", NODE, "203.0.113.142:80", masquerade(_there)),
            Case("load balancer UDP, the node", NODE, "203.0.113.142:80", masquerade(_there), UDP),
            Case("external IP from the node", NODE, "203.0.113.143:80", masquerade(_there)),
            Case(
                "NodePort on 127.0.0.1",
                LOOPBACK,
                f"{LOOPBACK}:30091",
                masquerade(_there),
                family=Family.IPV4,
            ),
            Case("clusterIP", POD3, "10.96.0.91:80", forward(_there)),
        ),
    ),
    Group(
        "externalTrafficPolicy Local without any endpoint",
        (node(), *_external),
        (
            Case("NodePort", CLIENT, f"{NODE}:30092", REJECT),
            Case("load balancer", CLIENT, "203.0.113.144:80", REJECT),
            Case("external IP", CLIENT, "203.0.113.145:80", REJECT),
            Case("NodePort from a pod", POD3, f"{NODE}:30092", REJECT),
            Case("load balancer from a pod", POD3, "203.0.113.144:80", REJECT),
            Case("NodePort from the node", NODE, f"{NODE}:30092", REJECT),
            Case("load balancer from the node", NODE, "203.0.113.144:80", REJECT),
            Case("clusterIP", POD3, "10.96.0.92:80", REJECT),
        ),
    ),
    Group(
        "externalTrafficPolicy Local while a local endpoint drains",
        (node(), *_external),
        (
            Case("NodePort", CLIENT, f"{NODE}:30093", forward(_here)),
            Case("load balancer", CLIENT, "203.0.113.146:80", forward(_here)),
            Case("a pod gets the ready one", POD3, "203.0.113.146:80", forward(_there)),
            Case("the node gets the ready one", NODE, f"{NODE}:30093", masquerade(_there)),
        ),
    ),
    Group(
        "both policies Local without a local endpoint",
        (node(), *_external),
        (
            Case("clusterIP", POD3, "10.96.0.94:80", DROP),
            Case("clusterIP from the node", NODE, "10.96.0.94:80", DROP),
            Case("NodePort", CLIENT, f"{NODE}:30094", DROP),
            Case("NodePort from a pod", POD3, f"{NODE}:30094", forward(_there)),
            Case("NodePort from the node", NODE, f"{NODE}:30094", masquerade(_there)),
            Case("another protocol", CLIENT, f"{NODE}:30094", PASS, UDP),
        ),
    ),
)
