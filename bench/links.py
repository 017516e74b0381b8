"""Interfaces, addresses and routes of a namespace, as lines of the `ip` tool."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterable
from typing import Any

from tests.support.net.namespace import Namespace

_ETHTOOL, _SET_GRO = 0x8946, 0x2C  # SIOCETHTOOL, ETHTOOL_SGRO
_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    # Addresses are usable at once.
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    # Who is refused is told so each time. The mask lifts the limit over all destinations as well.
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratelimit": 0,
}
_ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}


def prepare(namespace: Namespace) -> None:
    """Make a fresh namespace ready for links: loopback up, no surprises in its settings."""
    for name, value in _SYSCTLS.items():
        namespace.sysctl(name, value)
    ip(namespace, ["link set lo up"])


def forward_packets(namespace: Namespace) -> None:
    """Make a namespace a router."""
    for name, value in _ROUTER_SYSCTLS.items():
        namespace.sysctl(name, value)


def join(one: Namespace, name: str, other: Namespace, other_name: str = "eth0") -> None:
    """Make a veth pair between two namespaces, both ends up."""
    there = f"/proc/{os.getpid()}/fd/{other.fd}"
    ip(
        one,
        [
            f"link add {name} type veth peer name {other_name} netns {there}",
            f"link set {name} up",
        ],
    )
    ip(other, [f"link set {other_name} up"])


def ip(namespace: Namespace, lines: Iterable[str]) -> None:
    """Run `ip` with each line in the namespace. Raises CalledProcessError at the first refusal."""
    text = "\n".join(lines) + "\n"
    with namespace.entered():
        subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)


def details(namespace: Namespace, link: str) -> dict[str, Any]:
    """Return what `ip` tells of a link, with its counters."""
    return _links(namespace, link)[0]


def dropped(namespace: Namespace) -> int:
    """Return how many packets the devices of a namespace have dropped."""
    links = _links(namespace)
    return sum(link["stats64"][way]["dropped"] for link in links for way in ("rx", "tx"))


def _links(namespace: Namespace, *which: str) -> list[dict[str, Any]]:
    command = ["ip", "-json", "-stats", "link", "show", *which]
    with namespace.entered():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(said)
    return found


def receive_by_polling(namespace: Namespace, link: str) -> None:
    """Let a veth device collect what comes, as network cards do: so it takes XDP frames, too.

    The other end's frames are dropped otherwise (`veth_xdp_xmit`, since Linux 5.13).
    """
    on = array.array("I", (_SET_GRO, 1))
    request = struct.pack("=16sQ16x", link.encode(), on.buffer_info()[0])
    with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _ETHTOOL, request)
