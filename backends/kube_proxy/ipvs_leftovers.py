"""What kube-proxy's ipvs mode leaves besides rules: virtual servers and a dummy link.

pyroute2 is imported where a link was found: it holds 11 MB, and few nodes ever ran that mode.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from backends.kernel import ipset, ipset_elements
from backends.kernel.addresses import interface_addresses
from backends.kernel.ipset_elements import ElementSet
from backends.kernel.links import link_named
from backends.kernel.virtual_servers import Server, VirtualServers
from backends.kube_proxy import sets
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

LINK = "kube-ipvs0"

# The file exists only with the kernel module ip_vs; asking by netlink would load the module.
_IP_VS = Path("/proc/thread-self/net/ip_vs")
_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


Tells = Callable[[Server], bool]
"""Says something of a virtual server."""


def made_by_kube_proxy(family: Family) -> Tells:
    """Return what tells the virtual servers of a family that kube-proxy made.

    Their address is on its link, where all clusterIPs are; or they are a NodePort of its:
    (protocol, port) is in its sets; or they stand at a place in its sets, as an external address
    that another link has is not on its own. Raises BackendError.
    """
    addresses = link_addresses(family)
    existing = sets.existing(family)
    node_ports = frozenset(ipset.ports(sets.of_node_ports(existing)))
    places = frozenset(
        (each.protocol, each.address, each.port)
        for name in sets.of_places(existing)
        for each in ipset_elements.elements(ElementSet(name, "hash:ip,port", family))
    )

    def made(server: Server) -> bool:
        if server.family is not family or server.mark:  # it knows no marks
            return False
        return (
            server.address in addresses
            or (server.protocol, server.port) in node_ports
            or (server.protocol, server.address, server.port) in places
        )

    return made


def made_by_nobody(server: Server) -> bool:
    """Tell none."""
    return False


def remove_virtual_servers(family: Family) -> int:
    """Remove kube-proxy's virtual servers of a family; return how many. Raises BackendError."""
    if not _IP_VS.exists():
        return 0
    made = made_by_kube_proxy(family)
    with VirtualServers("removing kube-proxy's virtual servers") as kernel:
        stale = [server for server, _ in kernel.servers() if made(server)]
        kernel.delete_servers(stale)
    return len(stale)


def link_addresses(family: Family) -> frozenset[bytes]:
    """Return a family's addresses on kube-proxy's link, packed. Raises BackendError."""
    index = _link_index()
    if index is None:
        return frozenset()
    return frozenset(each.address for each in interface_addresses(family, index))


def remove_addresses(family: Family, but: Collection[bytes] = ()) -> int:
    """Take a family's addresses from kube-proxy's link; return how many. Raises BackendError.

    As long as they are there they are the node's own: NodePorts would answer on them. Those in
    `but`, packed, stay.
    """
    index = _link_index()
    if index is None:
        return 0
    from pyroute2 import IPRoute

    unwanted = [each for each in interface_addresses(family, index) if each.address not in but]
    with _refusals(f"removing addresses of the link {LINK}"), IPRoute() as routes:
        for each in unwanted:
            address = socket.inet_ntop(_AF[family], each.address)
            routes.addr("del", index=index, address=address, prefixlen=each.length)
    return len(unwanted)


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
    link = link_named(LINK)  # if_nametoindex runs modprobe for a name that no link has
    return None if link is None else link.device


@contextlib.contextmanager
def _refusals(doing: str) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (NetlinkError, OSError) as error:
        raise BackendError(doing, str(error), transient=False) from error
