"""ServiceCIDRs that hold, or lie in, networks of nodes and pods."""

from __future__ import annotations

from tests.support.net.plan import (
    CLIENT,
    CLUSTER_CIDR,
    FAR1,
    NODE,
    NODE2,
    NODE_SECOND,
    POD1,
    POD2,
    POD3,
)
from tests.support.packets.objects import endpoint_slice, node, port, service, service_cidr
from tests.support.packets.table import DROP, PASS, REJECT, UDP, Case, Group, forward, masquerade

NETWORK = "198.51.100.0/24"  # of NODE_SECOND and NODE2
NOBODY = "198.51.77.9:80"
OF_THE_NODES = "198.51.100.20"
_web = (
    service("web", OF_THE_NODES, port(80, node_port=30160)),
    endpoint_slice("web", POD1),
)
_frontends = (
    Case("a clusterIP there", POD3, f"{OF_THE_NODES}:80", forward(f"{POD1}:8080")),
    Case("a clusterIP there from the node", NODE, f"{OF_THE_NODES}:80", masquerade(f"{POD1}:8080")),
    Case("its other port", POD3, f"{OF_THE_NODES}:81", REJECT),
    Case("its other port from the node", NODE, f"{OF_THE_NODES}:81", REJECT),
    Case("a NodePort", CLIENT, f"{NODE_SECOND}:30160", masquerade(f"{POD1}:8080")),
)
_neighbour = (
    Case("the node to its neighbour", NODE, f"{NODE2}:6443", PASS),
    Case("the node to its neighbour, UDP", NODE_SECOND, f"{NODE2}:6443", PASS, UDP),
    Case("a pod to the neighbour", POD2, f"{NODE2}:22", PASS),
    Case("a client to the neighbour", CLIENT, f"{NODE2}:22", PASS),
    Case("a client to the node", CLIENT, f"{NODE_SECOND}:22", PASS),
)

GROUPS = (
    Group(
        "a ServiceCIDR around a network of the node",
        (node(), service_cidr("198.51.0.0/16"), *_web),
        (
            *_neighbour,
            *_frontends,
            Case("an unallocated address", POD3, NOBODY, DROP),
            Case("an unallocated address from the node", NODE, NOBODY, DROP),
        ),
        connected=(NETWORK,),
    ),
    Group(
        "a ServiceCIDR inside a network of the node",
        (node(), service_cidr("198.51.100.0/26"), *_web),
        (*_neighbour, *_frontends),
        connected=(NETWORK,),
    ),
    Group(
        "a ServiceCIDR around a Node's address",
        (node(NODE2), service_cidr("198.51.0.0/16"), *_web),
        (
            *_neighbour,
            *_frontends,
            Case("an unallocated address beside it", POD3, "198.51.100.77:80", DROP),
        ),
    ),
    Group(
        "a ServiceCIDR around the pods",
        (node(), service_cidr("10.0.0.0/8")),
        (
            Case("the podCIDR of the Node", NODE, f"{POD1}:8080", PASS),
            Case("clusterCIDR", POD1, f"{FAR1}:8080", PASS),
            Case("an unallocated address", POD1, "10.97.0.9:80", DROP),
        ),
        settings={"cluster_cidrs": (CLUSTER_CIDR,)},
    ),
    Group(
        "a ServiceCIDR around the pods, without clusterCIDR",
        (node(), service_cidr("10.0.0.0/8")),
        (
            Case("the podCIDR of the Node", NODE, f"{POD1}:8080", PASS),
            Case("a pod of a Node that nobody knows", POD1, f"{FAR1}:8080", DROP),
        ),
        settings={"cluster_cidrs": ()},
    ),
)
