"""A Service of TCP and UDP that conversations are held with, at some frontends or at all kinds."""

from __future__ import annotations

from tests.support.net.plan import CLIENT, NODE, POD3, ipv6_of
from tests.support.node.cluster import both
from tests.support.node.conversations import PORT
from tests.support.packets.objects import port, vip

PORTS = (
    port(80, name="tcp", node_port=30020),
    port(80, name="udp", protocol="UDP", node_port=30020),
)
SLICE_PORTS = (
    {"name": "tcp", "port": PORT, "protocol": "TCP"},
    {"name": "udp", "port": PORT, "protocol": "UDP"},
)
FRONTENDS = ("10.96.0.20:80", f"{NODE}:30020")
SOURCES = (CLIENT, POD3)
EXTERNAL, BALANCED = "203.0.113.210", "203.0.113.220"
EVERY_FRONTEND = (*FRONTENDS, f"{EXTERNAL}:80", f"{BALANCED}:80")
LOCAL_EXTERNAL, LOCAL_BALANCED = "203.0.113.211", "203.0.113.221"
LOCAL_FRONTENDS = (f"{NODE}:30021", f"{LOCAL_EXTERNAL}:80", f"{LOCAL_BALANCED}:80")


def web(*endpoints: str):
    return both("web", "10.96.0.20", *endpoints, ports=PORTS, slice_ports=SLICE_PORTS)


def web_everywhere(*endpoints: str | dict[str, object]):
    """Return the same with each kind of frontend that there is."""
    return both(
        "web",
        "10.96.0.20",
        *endpoints,
        ports=PORTS,
        slice_ports=SLICE_PORTS,
        externalIPs=[EXTERNAL, ipv6_of(EXTERNAL)],
        load_balancer=(vip(BALANCED), vip(ipv6_of(BALANCED))),
    )


def web_locally(*endpoints: str | dict[str, object]):
    """Return another such Service, whose externalTrafficPolicy is Local."""
    return both(
        "web-locally",
        "10.96.0.21",
        *endpoints,
        ports=tuple({**each, "nodePort": 30021} for each in PORTS),
        slice_ports=SLICE_PORTS,
        externalIPs=[LOCAL_EXTERNAL, ipv6_of(LOCAL_EXTERNAL)],
        load_balancer=(vip(LOCAL_BALANCED), vip(ipv6_of(LOCAL_BALANCED))),
        externalTrafficPolicy="Local",
    )
