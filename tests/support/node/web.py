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
