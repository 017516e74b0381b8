"""Which addresses and networks count as the node's own: as told, or those of this host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from kproxy.core.addresses import Family, Network, canonical_address, canonical_network
from kproxy.ports.data_path import BackendError
from kproxy.proxy.failures import BadUsage, Failed

F = TypeVar("F", bound=Callable[..., Any])

local_address_option: Callable[[F], F] = click.option(
    "--local-address",
    "local_addresses",
    metavar="IP[/LENGTH]",
    multiple=True,
    help="An address of the node, with the length of its network's prefix if neighbours are in it; "
    "repeat for each. Replaces those found on this host.",
)
"""Add `--local-address`."""


@dataclass(frozen=True, slots=True)
class Own:
    """The node's addresses, canonical, and the networks that it is directly connected to."""

    addresses: frozenset[str]
    networks: frozenset[Network]


def own_of(texts: tuple[str, ...]) -> Own:
    """Return what `--local-address` names, or else what this host has.

    Raises BadUsage and Failed.
    """
    if not texts:
        return _of_this_host()
    addresses, networks = set(), set()
    for text in texts:
        address, slash, _ = text.partition("/")
        try:
            addresses.add(canonical_address(address))
            if slash and (network := canonical_network(text)).num_addresses > 1:
                networks.add(network)
        except ValueError as error:
            why = f"{text!r} is no IP address, nor one with the length of a prefix"
            raise BadUsage(f"--local-address: {why}") from error
    return Own(frozenset(addresses), frozenset(networks))


def _of_this_host() -> Own:
    # Imported here, since no other question needs anything that touches the kernel.
    from kproxy.proxy.host import host_addresses, host_networks

    try:
        return Own(frozenset().union(*map(host_addresses, Family)), host_networks())
    except BackendError as error:
        raise Failed(f"{error}; give --local-address instead") from error
