"""Services without a usable endpoint, at every kind of frontend."""

from __future__ import annotations

from kproxy.core.addresses import Family
from tests.support.net.plan import CLIENT, FAR_CLIENT, LOOPBACK, NODE, NODE_SECOND, POD1, POD3
from tests.support.packets.objects import endpoint_slice, node, port, service, unready, vip
from tests.support.packets.table import PASS, REJECT, SCTP, UDP, Case, Group

_ports = (
    port(80, name="tcp", node_port=30100),
    port(80, name="udp", protocol="UDP", node_port=30100),
    port(80, name="sctp", protocol="SCTP", node_port=30100),
)
_empty = (
    service(
        "empty",
        "10.96.0.110",
        *_ports,
        load_balancer=(vip("203.0.113.150"),),
        externalIPs=["203.0.113.151"],
    ),
    service("unready", "10.96.0.111", port(80, node_port=30111)),
    endpoint_slice("unready", unready(POD1)),
)


def _all_protocols(kind: str, source: str, to: str) -> tuple[Case, ...]:
    return (
        Case(f"{kind}, TCP", source, to, REJECT),
        Case(f"{kind}, UDP", source, to, REJECT, UDP),
        Case(f"{kind}, SCTP", source, to, REJECT, SCTP),
    )


GROUPS = (
    Group(
        "no usable endpoint",
        (node(), *_empty),
        (
            *_all_protocols("clusterIP from a pod", POD3, "10.96.0.110:80"),
            *_all_protocols("clusterIP from the node", NODE, "10.96.0.110:80"),
            *_all_protocols("clusterIP from outside", CLIENT, "10.96.0.110:80"),
            *_all_protocols("NodePort", CLIENT, f"{NODE}:30100"),
            *_all_protocols("NodePort from the node", NODE, f"{NODE}:30100"),
            *_all_protocols("load balancer", CLIENT, "203.0.113.150:80"),
            *_all_protocols("load balancer from the node", NODE, "203.0.113.150:80"),
            *_all_protocols("external IP", CLIENT, "203.0.113.151:80"),
            Case("NodePort on the second address", CLIENT, f"{NODE_SECOND}:30100", REJECT),
            Case("NodePort from a pod", POD3, f"{NODE}:30100", REJECT),
            Case("load balancer from a far pod", FAR_CLIENT, "203.0.113.150:80", REJECT),
            Case("external IP from a pod", POD3, "203.0.113.151:80", REJECT, UDP),
            Case(
                "NodePort on 127.0.0.1",
                LOOPBACK,
                f"{LOOPBACK}:30100",
                REJECT,
                family=Family.IPV4,
            ),
            Case(
                "NodePort on 127.0.0.1, UDP",
                LOOPBACK,
                f"{LOOPBACK}:30100",
                REJECT,
                UDP,
                Family.IPV4,
            ),
            Case("::1 passes", LOOPBACK, f"{LOOPBACK}:30100", PASS, family=Family.IPV6),
            Case("an unready endpoint", POD3, "10.96.0.111:80", REJECT),
            Case("an unready endpoint, NodePort", CLIENT, f"{NODE}:30111", REJECT),
            Case("the NodePort's number elsewhere", CLIENT, "203.0.113.150:30100", PASS),
            Case("a load balancer's other port", CLIENT, "203.0.113.150:81", PASS),
        ),
    ),
)
