"""What of the node itself decides what ipvs mode keeps: its own addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backends.ipvs.render.renderer import Surroundings
from backends.kernel.addresses import (
    AddressFlag,
    InterfaceAddress,
    address_device,
    interface_addresses,
)
from backends.kernel.destinations import address_text
from backends.kernel.links import link_named
from backends.kernel.route_netlink import Event
from backends.kernel.source_address import source_address
from kproxy.core.addresses import Family

_GLOBAL, _LINK = 0, 253  # RT_SCOPE_*
_UNUSABLE = AddressFlag.TENTATIVE | AddressFlag.DUPLICATE
_NOT_PREFERRED = AddressFlag.DEPRECATED | AddressFlag.SECONDARY


class Around:
    """Follows the addresses of one family, save those on the links of `left_out`.

    Nor does an IPv6 address of link scope count: no NodePort is asked for there, and each pod's
    device has one, so that all NodePorts would be written again for each pod.
    """

    def __init__(self, family: Family, left_out: Iterable[str]) -> None:
        self._family = family
        self._left_out = tuple(left_out)
        self._known: list[InterfaceAddress] | None = None  # None: to be listed

    def take(self, event: Event) -> None:
        """Note what a message tells."""
        if address_device(event) is not None:
            self._known = None

    def forget(self) -> None:
        """Note that messages were lost."""
        self._known = None

    def look(self) -> Surroundings:
        """Return what is true now. Raises BackendError."""
        if self._known is None:
            self._known = self._listed()
        own = {each.address for each in self._known}
        source = source_address(self._family)
        if source not in own:
            source = _first(self._known)
        return Surroundings(
            frozenset(map(address_text, own)), None if source is None else address_text(source)
        )

    def _listed(self) -> list[InterfaceAddress]:
        left_out = set(_devices(self._left_out))
        beyond_links = [
            each
            for each in interface_addresses(self._family)
            if self._family is Family.IPV4 or each.scope != _LINK
        ]
        return [each for each in beyond_links if each.device not in left_out]


def _first(addresses: Sequence[InterfaceAddress]) -> bytes | None:
    """Return what a host without a route for all others speaks from.

    The kernel lists the newest IPv6 address first: another one is no reason to speak from it.
    """
    usable = [each for each in addresses if each.scope == _GLOBAL and not each.flags & _UNUSABLE]
    ranked = [(each.flags & _NOT_PREFERRED != 0, each.device, each.address) for each in usable]
    return min(ranked)[-1] if ranked else None


def _devices(names: Iterable[str]) -> Iterable[int]:
    for link in map(link_named, names):
        if link is not None:
            yield link.device
