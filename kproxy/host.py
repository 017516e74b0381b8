"""What this host says about itself over netlink."""

from __future__ import annotations

import socket

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kproxy.backend import BackendError
from kproxy.core.addresses import Family, canonical_address

_SOCKET_FAMILY = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces, canonical, of this network namespace.

    Needs no privilege. Raises BackendError.
    """
    doing = f"list the host's {family.value} addresses"
    try:
        with IPRoute() as netlink:
            found = list(netlink.get_addr(family=_SOCKET_FAMILY[family]))
    except (NetlinkError, OSError) as error:
        raise BackendError(doing, str(error), transient=True) from error
    # On a point-to-point link IFA_ADDRESS is the peer's address, and IFA_LOCAL is ours.
    own = (each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS") for each in found)
    return frozenset(canonical_address(address) for address in own if address)
