"""NodePort, external IP and load-balancer traffic under externalTrafficPolicy Cluster."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import (
    CLIENT,
    FAR1,
    FAR_CLIENT,
    LOOPBACK,
    NODE,
    NODE_POD_SIDE,
    NODE_SECOND,
    NODE_VIP,
    POD1,
    POD2,
    POD3,
)
from tests.support.packets.objects import (
    endpoint,
    endpoint_slice,
    node,
    port,
    service,
    slice_port,
    vip,
)
from tests.support.packets.table import PASS, SCTP, UDP, Case, Group, forward, masquerade

_on = (f"{POD1}:8080", f"{FAR1}:8080")
_shop = (
    service(
        "shop",
        "10.96.0.50",
        port(80, node_port=30080),
        load_balancer=(vip("203.0.113.100"),),
        externalIPs=["203.0.113.101"],
    ),
    endpoint_slice("shop", POD1, FAR1),
    service(
        "names",
        "10.96.0.51",
        port(53, name="tcp", node_port=30053),
        port(53, name="udp", protocol="UDP", node_port=30053),
        port(53, name="sctp", protocol="SCTP", node_port=30053),
        load_balancer=(vip("203.0.113.102"),),
    ),
    endpoint_slice("names", POD1, ports=(slice_port("tcp", 5353),), suffix="tcp"),
    endpoint_slice("names", POD2, ports=(slice_port("udp", 5353, "UDP"),), suffix="udp"),
    endpoint_slice("names", POD3, ports=(slice_port("sctp", 5353, "SCTP"),), suffix="sctp"),
)
_host_network = (
    service(
        "host-network",
        "10.96.0.52",
        port(80, node_port=30052),
        externalTrafficPolicy="Local",
    ),
    endpoint_slice("host-network", endpoint(NODE)),
)

_ingress = (
    {"ip": "203.0.113.130", "ipMode": "VIP"},
    {"ip": "203.0.113.131", "ipMode": "Proxy"},
    {"hostname": "lb.example.com"},
    {"ip": "203.0.113.132"},
    {"ip": LOOPBACK},
)
_modes = (
    service(
        "modes",
        "10.96.0.53",
        load_balancer=_ingress,
        loadBalancerIP="203.0.113.133",
        allocateLoadBalancerNodePorts=False,
    ),
    endpoint_slice("modes", POD1),
    service("typed", "10.96.0.54", type="ClusterIP", load_balancer=(vip("203.0.113.134"),)),
    endpoint_slice("typed", POD1),
    service("hosted", "10.96.0.55", port(80, node_port=30055), load_balancer=({"hostname": "h"},)),
    endpoint_slice("hosted", POD1),
)

GROUPS = (
    Group(
        "external IPs that are not allowed",
        (node(), *_shop),
        (
            Case("an external IP is left alone", CLIENT, "203.0.113.101:80", PASS),
            Case("a pod's packet too", POD3, "203.0.113.101:80", PASS),
            Case("the clusterIP is served", POD3, "10.96.0.50:80", forward(*_on)),
            Case("the load balancer is served", CLIENT, "203.0.113.100:80", masquerade(*_on)),
        ),
        settings={"external_ips": False},
    ),
    Group(
        "external traffic, policy Cluster",
        (node(), *_shop),
        (
            Case("NodePort", CLIENT, f"{NODE}:30080", masquerade(*_on)),
            Case(
                "NodePort on the second address", CLIENT, f"{NODE_SECOND}:30080", masquerade(*_on)
            ),
            Case("NodePort on a VIP of the node", CLIENT, f"{NODE_VIP}:30080", masquerade(*_on)),
            Case("NodePort from a pod", POD3, f"{NODE_POD_SIDE}:30080", masquerade(*_on)),
            Case("NodePort from an endpoint", POD1, f"{NODE}:30080", masquerade(*_on)),
            Case("NodePort from a far pod", FAR_CLIENT, f"{NODE}:30080", masquerade(*_on)),
            Case("NodePort from the node", NODE, f"{NODE}:30080", masquerade(*_on)),
            Case("NodePort to the other address", NODE, f"{NODE_SECOND}:30080", masquerade(*_on)),
            Case(
                "NodePort on 127.0.0.1",
                LOOPBACK,
                f"{LOOPBACK}:30080",
                masquerade(*_on),
                family=Family.IPV4,
            ),
            Case(
                "NodePort on another address of 127.0.0.0/8",
                LOOPBACK,
                "127.0.0.53:30080",
                masquerade(*_on),
                family=Family.IPV4,
            ),
            Case("::1 cannot be served", LOOPBACK, f"{LOOPBACK}:30080", PASS, family=Family.IPV6),
            Case("load balancer", CLIENT, "203.0.113.100:80", masquerade(*_on)),
            Case("load balancer from a pod", POD3, "203.0.113.100:80", masquerade(*_on)),
            Case("load balancer from a far pod", FAR_CLIENT, "203.0.113.100:80", masquerade(*_on)),
            Case("load balancer from the node", NODE, "203.0.113.100:80", masquerade(*_on)),
            Case("external IP", CLIENT, "203.0.113.101:80", masquerade(*_on)),
            Case("external IP from a pod", POD3, "203.0.113.101:80", masquerade(*_on)),
            Case("external IP from the node", NODE, "203.0.113.101:80", masquerade(*_on)),
            Case("clusterIP of the same Service", POD3, "10.96.0.50:80", forward(*_on)),
            Case("NodePort holds on local addresses only", CLIENT, "203.0.113.100:30080", PASS),
            Case("the service port is no NodePort", CLIENT, f"{NODE}:80", PASS),
            Case("a NodePort nobody has", CLIENT, f"{NODE}:30999", PASS),
            Case("a NodePort of another protocol", CLIENT, f"{NODE}:30080", PASS, UDP),
            Case("a load balancer's unknown port passes", CLIENT, "203.0.113.100:81", PASS),
            Case("another protocol to a load balancer", CLIENT, "203.0.113.100:80", PASS, SCTP),
            Case("an external IP's unknown port passes", POD3, "203.0.113.101:81", PASS),
        ),
    ),
    Group(
        "external traffic of three protocols",
        (node(), *_shop),
        (
            Case("NodePort TCP", CLIENT, f"{NODE}:30053", masquerade(f"{POD1}:5353")),
            Case("NodePort UDP", CLIENT, f"{NODE}:30053", masquerade(f"{POD2}:5353"), UDP),
            Case("NodePort SCTP", CLIENT, f"{NODE}:30053", masquerade(f"{POD3}:5353"), SCTP),
            Case(
                "NodePort UDP of the node", NODE, f"{NODE}:30053", masquerade(f"{POD2}:5353"), UDP
            ),
            Case(
                "NodePort SCTP of the node", NODE, f"{NODE}:30053", masquerade(f"{POD3}:5353"), SCTP
            ),
            Case(
                "NodePort UDP on 127.0.0.1",
                LOOPBACK,
                f"{LOOPBACK}:30053",
                masquerade(f"{POD2}:5353"),
                UDP,
                Family.IPV4,
            ),
            Case("load balancer UDP", CLIENT, "203.0.113.102:53", masquerade(f"{POD2}:5353"), UDP),
            Case(
                "load balancer SCTP", CLIENT, "203.0.113.102:53", masquerade(f"{POD3}:5353"), SCTP
            ),
        ),
    ),
    Group(
        "an endpoint on the node's own address",
        (node(), *_host_network),
        (
            Case("from outside", CLIENT, f"{NODE}:30052", forward(f"{NODE}:8080")),
            Case("from a pod", POD3, f"{NODE}:30052", forward(f"{NODE}:8080")),
            Case("clusterIP from a pod", POD3, "10.96.0.52:80", forward(f"{NODE}:8080")),
            Case("clusterIP from the node", NODE, "10.96.0.52:80", masquerade(f"{NODE}:8080")),
        ),
    ),
    Group(
        "load-balancer status",
        (node(), *_modes),
        (
            Case("ipMode VIP", CLIENT, "203.0.113.130:80", masquerade(f"{POD1}:8080")),
            Case("ipMode Proxy", CLIENT, "203.0.113.131:80", PASS),
            Case("ipMode Proxy from a pod", POD3, "203.0.113.131:80", PASS),
            Case("ipMode Proxy from the node", NODE, "203.0.113.131:80", PASS),
            Case("ipMode unset is VIP", POD3, "203.0.113.132:80", masquerade(f"{POD1}:8080")),
            Case("loopback stays the node's own", LOOPBACK, f"{LOOPBACK}:80", PASS),
            Case("spec.loadBalancerIP is not used", CLIENT, "203.0.113.133:80", PASS),
            Case("the type is not checked", CLIENT, "203.0.113.134:80", masquerade(f"{POD1}:8080")),
            Case(
                "a host name leaves the NodePort",
                CLIENT,
                f"{NODE}:30055",
                masquerade(f"{POD1}:8080"),
            ),
        ),
    ),
)
