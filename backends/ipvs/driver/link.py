"""The link of service addresses, and one family's local routes to it, as part of the image.

Both families share the link: it is made for the first route, and removed behind the last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from backends.ipvs.driver.around import Around
from backends.ipvs.render.entries import raw_address_key, split_address
from backends.ipvs.render.renderer import Surroundings
from backends.kernel import dummy_links
from backends.kernel.addresses import lost_address
from backends.kernel.host_routes import HostRoute, HostRoutes, routes_on
from backends.kernel.links import Link, LinkFlag, changed_link, link_named
from backends.kernel.local_routes import changed_route
from backends.kernel.route_netlink import Event, Group, Kind, Overrun, RouteEvents
from backends.kube_proxy.ipvs_leftovers import LINK as KUBE_PROXYS_LINK
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, Image, Key

LINK = "kube-ipvs-kp"

# A route of ours stands behind one that the kernel makes for an address, and never replaces it.
_PRIORITY = 0x6B70
_PROTOCOL = 0x6B  # of those that are anybody's (linux/rtnetlink.h)

_ALTERED = b"altered"
_GROUPS = {
    Family.IPV4: Group.LINKS | Group.IPV4_ADDRESSES | Group.IPV4_ROUTES,
    Family.IPV6: Group.LINKS | Group.IPV6_ADDRESSES | Group.IPV6_ROUTES,
}
_EVENTS_AT_ONCE = 4096


class SharedLink:
    """The link itself, of all families, whose threads come at the same time.

    `kept` is held where routes are put on it, and where it is removed.
    """

    def __init__(self) -> None:
        self.kept = threading.Lock()

    def find(self) -> Link | None:
        """Return it, None if it is not there: another kind's is not ours. Raises BackendError."""
        link = link_named(LINK)
        return link if link is not None and link.kind == dummy_links.KIND else None


class ServiceLink:
    """One family's addresses on the link, and the node's own. Any call may raise BackendError.

    Netlink tells what others do to our routes, and not what our socket does. Nor does it tell of
    IPv4 routes that go together with their link or with the source that they name, so these count.
    """

    def __init__(self, family: Family, shared: SharedLink) -> None:
        self._family = family
        self._shared = shared
        self._routes = HostRoutes(family)
        self._events = RouteEvents(_GROUPS[family], but_of=self._routes.port)
        self._around = Around(family, (LINK, KUBE_PROXYS_LINK))
        self._surroundings = self._around.look()
        self._device = 0
        self._sources: set[bytes] = set()
        self._strays: dict[bytes, list[HostRoute]] = {}  # to our addresses, not as we write them
        self._doubted = True

    def surroundings(self) -> Surroundings:
        """Return the node's own addresses as `disturbed` saw them last."""
        return self._surroundings

    def observe(self) -> Image:
        """Read back what is on our link."""
        self._catch_up()
        self._doubted = False
        self._sources.clear()
        self._strays.clear()
        link = self._shared.find()
        if link is None or not link.flags & LinkFlag.UP:
            return {}
        self._device = link.device
        image: dict[Key, bytes] = {}
        for route in routes_on(self._family, link.device):
            if route == _route(route.address, route.source):
                image[raw_address_key(route.address)] = route.source
                self._sources.add(route.source)
            else:
                self._strays.setdefault(route.address, []).append(route)
        image.update(dict.fromkeys(map(raw_address_key, self._strays), _ALTERED))
        return image

    def put(self, changes: Changes) -> None:
        """Put addresses on the link, which is made where it is missing."""
        wanted = [_route(address, source) for address, source in _addresses(changes.put)]
        if not wanted:
            return
        self._sources.update(route.source for route in wanted)
        with self._shared.kept:
            link = dummy_links.raised(LINK)
            self._catch_up()  # it is not somebody else who made it
            self._device = link.device
            self._routes.delete(link.device, self._taken_strays(wanted))
            self._routes.put(link.device, wanted)

    def drop(self, changes: Changes) -> None:
        """Take addresses from the link."""
        gone = {key: b"" for key in changes.drop}
        unwanted = [_route(address, source) for address, source in _addresses(gone)]
        link = self._shared.find() if unwanted else None
        if link is not None:
            self._routes.delete(link.device, [*self._taken_strays(unwanted), *unwanted])

    def clean_up(self) -> int:
        """Remove all of it; return how many routes there were, and the link if it was the last."""
        with self._shared.kept:
            link = self._shared.find()
            if link is None:
                return 0
            mine = list(routes_on(self._family, link.device))
            others = (family for family in Family if family is not self._family)
            if any(True for family in others for _ in routes_on(family, link.device)):
                self._routes.delete(link.device, mine)
                return len(mine)
            return len(mine) + dummy_links.remove(link)

    def disturbed(self) -> bool:
        """Say whether others changed our routes or the link, or the node's addresses are others."""
        self._catch_up()
        before, self._surroundings = self._surroundings, self._around.look()
        return self._doubted or self._surroundings != before

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something for `tend`."""
        return self._events.fileno()

    def tend(self) -> bool:
        """Take in what was told, up to some; return whether there is more."""
        try:
            events = self._events.read(_EVENTS_AT_ONCE)
        except Overrun:
            self._doubted = True
            self._around.forget()
            return True
        for event in events:
            self._around.take(event)
            self._doubted = self._doubted or self._concerns_us(event)
        return len(events) >= _EVENTS_AT_ONCE

    def close(self) -> None:
        """Let go of the sockets."""
        self._events.close()
        self._routes.close()

    def _catch_up(self) -> None:
        while self.tend():
            pass

    def _concerns_us(self, event: Event) -> bool:
        route = changed_route(self._family, event)
        if route is not None:
            return route.device == self._device
        lost = lost_address(event)
        if lost is not None:
            return lost in self._sources
        link = changed_link(event)
        if link is None or link.device != self._device:
            return False
        gone = event.kind == Kind.DELETED_LINK or link.name != LINK
        return gone or not link.flags & LinkFlag.UP

    def _taken_strays(self, routes: Iterable[HostRoute]) -> list[HostRoute]:
        return [stray for route in routes for stray in self._strays.pop(route.address, ())]


def _route(address: bytes, source: bytes) -> HostRoute:
    return HostRoute(address, source, _PRIORITY, _PROTOCOL)


def _addresses(values: Mapping[Key, bytes]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in values.items():
        address = split_address(key)
        if address is not None:
            yield address, value
