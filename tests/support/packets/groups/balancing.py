"""Services whose connections are counted: how they spread, and whether a client stays."""

from __future__ import annotations

from tests.support.net.plan import CLIENT, FAR1, FAR2, NODE, POD1, POD2, POD3
from tests.support.packets.objects import endpoint_slice, node, port, service, slice_port, vip
from tests.support.packets.table import Case, Group, forward, masquerade

AFFINITY_TIMEOUT_S = 4
_MACHINES = (POD1, POD2, FAR1, FAR2)
_ports = tuple(range(9001, 9011))

FEW = "10.96.0.140:80"
MANY = "10.96.0.141:80"
STICKY = ("10.96.0.142:80", "203.0.113.170:80", f"{NODE}:30142")
FEW_TARGETS = tuple(f"{address}:8080" for address in _MACHINES)
MANY_TARGETS = tuple(f"{address}:{number}" for number in _ports for address in _MACHINES)

SPREAD = "spread"
AFFINITY = "session affinity"

GROUPS = (
    Group(
        SPREAD,
        (
            node(),
            service("few", "10.96.0.140"),
            endpoint_slice("few", *_MACHINES),
            service("many", "10.96.0.141"),
            *(
                endpoint_slice(
                    "many", *_MACHINES, ports=(slice_port("", number),), suffix=str(number)
                )
                for number in _ports
            ),
        ),
        (
            Case("a few endpoints", POD3, FEW, forward(*FEW_TARGETS)),
            Case("many endpoints", POD3, MANY, forward(*MANY_TARGETS)),
            Case("one of many endpoints", POD1, MANY, forward(*MANY_TARGETS)),
        ),
    ),
    Group(
        AFFINITY,
        (
            node(),
            service(
                "sticky",
                "10.96.0.142",
                port(80, node_port=30142),
                load_balancer=(vip("203.0.113.170"),),
                sessionAffinity="ClientIP",
                sessionAffinityConfig={"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT_S}},
            ),
            endpoint_slice("sticky", *_MACHINES),
        ),
        (
            Case("clusterIP", POD3, STICKY[0], forward(*FEW_TARGETS)),
            Case("clusterIP from outside", CLIENT, STICKY[0], masquerade(*FEW_TARGETS)),
            Case("load balancer", CLIENT, STICKY[1], masquerade(*FEW_TARGETS)),
            Case("NodePort", CLIENT, STICKY[2], masquerade(*FEW_TARGETS)),
            Case("hairpin among others", POD1, STICKY[0], forward(*FEW_TARGETS)),
        ),
    ),
)
