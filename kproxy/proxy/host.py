"""What every data path needs to know of the host."""

from __future__ import annotations

from backends.kernel import addresses
from backends.kernel.addresses import AddressEvents
from kproxy.core.addresses import Family, Network


def host_addresses(family: Family) -> frozenset[str]:
    """Return the addresses of all interfaces of this host, canonical. Raises BackendError."""
    return addresses.host_addresses(family)


def host_networks() -> frozenset[Network]:
    """Return the networks that this host is directly connected to. Raises BackendError."""
    return frozenset().union(*map(addresses.host_networks, Family))


def address_events() -> AddressEvents:
    """Return what tells that addresses of this host came or went. Raises BackendError."""
    return AddressEvents()
