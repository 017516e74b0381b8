"""What of the host's addresses programs go by: which are its own, and which masquerade picks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from ipaddress import ip_address

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.entries import Entries
from backends.ebpf.driver.masquerade import choices
from backends.kernel.addresses import InterfaceAddress, address_device, interface_addresses
from backends.kernel.bpf.maps import Map
from backends.kernel.local_routes import LocalRoute, changed_route, local_routes
from backends.kernel.route_netlink import Event, Kind
from kproxy.core.addresses import Family

_MOST_ONE_BY_ONE = 8  # devices whose addresses are asked for apart, before all are

_Prefix = tuple[int, bytes]


class Addresses:
    """Follows one family's addresses and local routes. Any call may raise BackendError.

    What programs shall take for the host's own is claimed before, but for loopback: packets with
    such addresses meet no program that would pass them on unseen.
    """

    def __init__(self, family: Family, maps: Mapping[str, Map], claims: Claims) -> None:
        self._family = family
        self._claims = claims
        self._own = Entries(maps["own_addresses"])
        self._networks = Entries(maps["own_networks"])
        self._masquerade = Entries(maps["masquerade_addresses"])
        self._routes: dict[_Prefix, set[LocalRoute]] = {}
        self._by_device: dict[int, list[InterfaceAddress]] = {}
        self._masqueraded: dict[int, Collection[bytes]] = {}  # the keys that a device has
        self._moved: set[_Prefix] = set()  # whose routes changed
        self._altered: set[int] = set()  # devices whose addresses changed

    def read(self) -> None:
        """Ask for everything, and make the maps hold that alone."""
        self._moved = set(self._routes)
        self._routes = {prefix: set() for prefix in self._moved}
        for route in local_routes(self._family):
            prefix = (route.length, route.network)
            self._routes.setdefault(prefix, set()).add(route)
            self._moved.add(prefix)
        self._read_addresses()
        self._altered.clear()
        self.write()
        self.audit()

    def take(self, event: Event) -> None:
        """Note what a message tells; `write` follows."""
        device = address_device(event)
        if device is not None:
            self._altered.add(device)
        route = changed_route(self._family, event)
        if route is not None:
            prefix = (route.length, route.network)
            routes = self._routes.setdefault(prefix, set())
            (routes.add if event.kind == Kind.NEW_ROUTE else routes.discard)(route)
            self._moved.add(prefix)

    def lost(self, devices: Set[int]) -> None:
        """Note that devices are gone: the kernel tells of no IPv4 route that went with them."""
        if not devices:
            return
        self._altered.update(devices & self._by_device.keys())
        for prefix, routes in self._routes.items():
            gone = {route for route in routes if route.device in devices}
            if gone:
                routes -= gone
                self._moved.add(prefix)

    def write(self) -> None:
        """Bring the maps up to date with what was noted."""
        if self._moved:
            single, larger = self._local(self._moved)
            self._claim()
            self._own.put(single)
            self._networks.put(larger)
            for prefix in self._moved:
                if not self._routes[prefix]:
                    del self._routes[prefix]
            self._moved.clear()
        if len(self._altered) > _MOST_ONE_BY_ONE:
            self._read_addresses()
        elif self._altered:
            for device in self._altered:
                self._by_device[device] = interface_addresses(self._family, device)
            self._write_masquerade(self._altered)
        self._altered.clear()

    def at(self, device: int) -> bool:
        """Say whether a device has an address."""
        return bool(self._by_device.get(device))

    def audit(self) -> int:
        """Undo what others did to the maps; return how many entries that took."""
        audited = (self._claims, self._own, self._networks, self._masquerade)
        return sum(each.audit() for each in audited)

    def _local(self, prefixes: Iterable[_Prefix]) -> tuple[dict[bytes, bytes | None], ...]:
        """Return the entries of single addresses, and those of larger networks; None where gone."""
        single: dict[bytes, bytes | None] = {}
        larger: dict[bytes, bytes | None] = {}
        for length, network in prefixes:
            routes = self._routes[length, network]
            if length == self._family.bits:
                device = min((route.device for route in routes), default=None)
                single[network] = None if device is None else device_layout.number(device)
            else:
                key = device_layout.network_key(length, network)
                larger[key] = device_layout.OWN if routes else None
        return single, larger

    def _claim(self) -> None:
        moved = [
            (network, length)
            for length, network in self._moved
            if self._routes[length, network] and not ip_address(network).is_loopback
        ]
        bits = self._family.bits
        self._claims.add(network for network, length in moved if length == bits)
        self._claims.add_networks(each for each in moved if each[1] < bits)

    def _read_addresses(self) -> None:
        known = {*self._by_device, *self._masqueraded}
        self._by_device = {}
        for each in interface_addresses(self._family):
            self._by_device.setdefault(each.device, []).append(each)
        self._write_masquerade({*known, *self._by_device})

    def _write_masquerade(self, devices: Iterable[int]) -> None:
        addresses = [each for device in sorted(self._by_device) for each in self._by_device[device]]
        changes: dict[bytes, bytes | None] = {}
        for device in {device_layout.ANY_DEVICE, *devices}:
            chosen = {
                device_layout.masquerade_key(device, length, prefix): address
                for (length, prefix), address in choices(self._family, addresses, device).items()
            }
            changes.update(dict.fromkeys(self._masqueraded.pop(device, ())))
            changes.update(chosen)
            if chosen:
                self._masqueraded[device] = chosen.keys()
        self._masquerade.put(changes)
