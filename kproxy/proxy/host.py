"""What every data path needs to know of the host."""

from __future__ import annotations

from backends.kernel import addresses
from kproxy.core.addresses import Family


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces of this host, canonical. Raises BackendError."""
    return addresses.host_addresses(family)
