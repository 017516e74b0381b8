"""What kube-proxy's ipvs mode leaves besides rules: virtual servers and a dummy link.

pyroute2 is imported where something was found: it holds 11 MB, and few nodes ever ran that mode.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from backends.kernel import ipset
from kproxy.core.addresses import Family, Network
from kproxy.ports.data_path import BackendError

LINK = "kube-ipvs0"

# The file exists only with the kernel module ip_vs; asking by netlink would load the module.
_IP_VS = Path("/proc/thread-self/net/ip_vs")
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class VirtualServer(NamedTuple):
    """One virtual server; the protocol is its IP number."""

    address: str
    protocol: int
    port: int


def remove_virtual_servers(
    family: Family, node_port_sets: Iterable[str], excluded: Collection[Network]
) -> int:
    """Remove kube-proxy's virtual servers of a family; return how many. Raises BackendError.

    Those in the networks `excluded` stay.
    """
    if not _IP_VS.exists():
        return 0
    from pyroute2 import IPVS, IPVSService

    node_ports = frozenset(ipset.ports(node_port_sets))
    with _refusals("removing virtual servers"), IPVS() as ipvs:
        dumped = [IPVSService.from_message(message) for message in ipvs.service("dump")]
        servers = [
            VirtualServer(one["addr"], one["protocol"], one["port"])
            for one in dumped
            if "addr" in one and one["af"] == _AF[family]  # others are found by a packet mark
        ]
        stale = [
            server
            for server in kube_proxys(servers, _link_addresses(), node_ports)
            if not is_excluded(server, excluded)
        ]
        for server in stale:
            ipvs.service(
                "del",
                IPVSService(addr=server.address, protocol=server.protocol, port=server.port),
            )
        return len(stale)


def kube_proxys(
    servers: Iterable[VirtualServer],
    link_addresses: Collection[str],
    node_ports: Collection[tuple[int, int]],
) -> list[VirtualServer]:
    """Return those virtual servers that kube-proxy made.

    Their address is on its link, or they are a NodePort of its: (protocol, port) is in its sets.
    """
    return [
        server
        for server in servers
        if server.address in link_addresses or (server.protocol, server.port) in node_ports
    ]


def is_excluded(server: VirtualServer, excluded: Iterable[Network]) -> bool:
    """Say whether a virtual server is in one of these networks."""
    return any(ipaddress.ip_address(server.address) in each for each in excluded)


def remove_addresses(family: Family) -> int:
    """Take a family's addresses from kube-proxy's link; return how many. Raises BackendError.

    As long as they are there they are the node's own: NodePorts would answer on them.
    """
    index = _link_index()
    if index is None:
        return 0
    from pyroute2 import IPRoute

    with _refusals(f"removing addresses of the link {LINK}"), IPRoute() as routes:
        found = list(routes.get_addr(index=index, family=_AF[family]))
        if found:
            routes.flush_addr(index=index, family=_AF[family])
        return len(found)


def remove_link() -> int:
    """Remove kube-proxy's dummy link; return how many there were. Raises BackendError."""
    index = _link_index()
    if index is None:
        return 0
    from pyroute2 import IPRoute

    with _refusals(f"removing the link {LINK}"), IPRoute() as routes:
        routes.link("del", index=index)
    return 1


def _link_index() -> int | None:
    try:
        return socket.if_nametoindex(LINK)
    except OSError:
        return None


def _link_addresses() -> set[str]:
    index = _link_index()
    if index is None:
        return set()
    from pyroute2 import IPRoute

    with IPRoute() as routes:
        return {each.get_attr("IFA_ADDRESS") for each in routes.get_addr(index=index)}


@contextlib.contextmanager
def _refusals(doing: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (NetlinkError, OSError) as error:
        raise BackendError(doing, str(error), transient=False) from error
