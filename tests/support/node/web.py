"""A Service of TCP and UDP that conversations are held with."""

from __future__ import annotations

from tests.support.net.plan import CLIENT, NODE, POD3
from tests.support.node.cluster import both
from tests.support.node.conversations import PORT
from tests.support.packets.objects import port

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


def web(*endpoints: str):
    return both("web", "10.96.0.20", *endpoints, ports=PORTS, slice_ports=SLICE_PORTS)
