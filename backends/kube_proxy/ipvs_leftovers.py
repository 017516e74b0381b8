"""What kube-proxy's ipvs mode leaves besides rules: virtual servers and a dummy link.

pyroute2 is imported where a link was found: it holds 11 MB, and few nodes ever ran that mode.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from backends.kernel import ipset
from backends.kernel.addresses import interface_addresses
from backends.kernel.virtual_servers import Server, VirtualServers
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

LINK = "kube-ipvs0"

# The file exists only with the kernel module ip_vs; asking by netlink would load the module.
_IP_VS = Path("/proc/thread-self/net/ip_vs")
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def remove_virtual_servers(
    family: Family, node_port_sets: Iterable[str], spares: Callable[[Server], bool]
) -> int:
    """Remove kube-proxy's virtual servers of a family; return how many. Raises BackendError.

    Those stay of which `spares` says so.
    """
    if not _IP_VS.exists():
        return 0
    link_addresses = _link_addresses(family)
    node_ports = frozenset(ipset.ports(node_port_sets))
    with VirtualServers("removing kube-proxy's virtual servers") as kernel:
        by_address = [
            server
            for server, _ in kernel.servers()
            if server.family is family and not server.mark  # kube-proxy knows no marks
        ]
        stale = [
            server
            for server in kube_proxys(by_address, link_addresses, node_ports)
            if not spares(server)
        ]
        kernel.delete_servers(stale)
    return len(stale)


def kube_proxys(
    servers: Iterable[Server],
    link_addresses: Collection[bytes],
    node_ports: Collection[tuple[int, int]],
) -> list[Server]:
    """Return those virtual servers that kube-proxy made.

    Their address is on its link, or they are a NodePort of its: (protocol, port) is in its sets.
    """
    return [
        server
        for server in servers
        if server.address in link_addresses or (server.protocol, server.port) in node_ports
    ]


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


def _link_addresses(family: Family) -> set[bytes]:
    index = _link_index()
    if index is None:
        return set()
    return {each.address for each in interface_addresses(family, index)}


@contextlib.contextmanager
def _refusals(doing: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (NetlinkError, OSError) as error:
        raise BackendError(doing, str(error), transient=False) from error
