"""The link of service addresses, and one family's local routes to it, as part of the image.

Those of steered addresses are in a table of their own, which packets of our mark alone look into.
Both families share the link: it is made for the first route, and removed behind the last.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping

from backends.ipvs.driver.around import Around
from backends.ipvs.render.entries import (
    STEERING,
    raw_address_key,
    raw_steered_key,
    split_address,
    split_steered,
)
from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Surroundings
from backends.kernel import dummy_links, routing_rules
from backends.kernel.addresses import lost_address
from backends.kernel.host_routes import HostRoute, HostRoutes, routed_device, routes_on
from backends.kernel.links import Link, LinkFlag, changed_link, link_named
from backends.kernel.route_netlink import (
    LOCAL_TABLE,
    Event,
    Group,
    Overrun,
    RouteEvents,
)
from backends.kernel.routing_rules import Rule, is_about, rules_to
from backends.kube_proxy.ipvs_leftovers import LINK as KUBE_PROXYS_LINK
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, Image, Key

LINK = "kube-ipvs-kp"

# Where the addresses are that only steered packets find, and the rule by which those look there:
# before others' rules, as it leads nobody else's packets anywhere.
TABLE = 0x6B70
STEERING_RULE = Rule(priority=107, mark=STEERED, mask=STEERED, table=TABLE)

# A route of ours stands behind one that the kernel makes for an address, and never replaces it.
PRIORITY = 0x6B70
PROTOCOL = 0x6B  # of those that are anybody's (linux/rtnetlink.h)

_ALTERED = b"altered"
_GROUPS = {
    Family.IPV4: Group.IPV4_ADDRESSES | Group.IPV4_ROUTES | Group.IPV4_RULES,
    Family.IPV6: Group.IPV6_ADDRESSES | Group.IPV6_ROUTES | Group.IPV6_RULES,
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

    Netlink tells what others do to our routes and rule, and not what our socket does. Nor does it
    tell of IPv4 routes that go with their link or the source that they name, so these count too.
    """

    def __init__(self, family: Family, shared: SharedLink) -> None:
        self._family = family
        self._shared = shared
        self._routes = HostRoutes(family)
        self._events = RouteEvents(
            Group.LINKS | _GROUPS[family], but_of=self._routes.writer.port, any_table=True
        )
        self._around = Around(family, (LINK, KUBE_PROXYS_LINK))
        self._surroundings = self._around.look()
        self._device = 0
        self._sources: set[bytes] = set()
        self._strays: dict[bytes, list[HostRoute]] = {}  # of a key, and not as we write it
        self._rules: list[Rule] = []
        self._doubted = True
        self._leaving: set[Key] = set()  # not wanted, but needed for a while

    def surroundings(self) -> Surroundings:
        """Return the node's own addresses as `disturbed` saw them last."""
        return self._surroundings

    def observe(self) -> Image:
        """Read back what is on our link, and what leads there."""
        self._catch_up()
        self._doubted = False
        self._sources.clear()
        self._strays.clear()
        image: dict[Key, bytes] = {}
        self._rules = rules_to(self._family, TABLE)
        if self._rules:
            image[STEERING] = b"" if self._rules == [STEERING_RULE] else _ALTERED
        link = self._shared.find()
        if link is None or not link.flags & LinkFlag.UP:
            return image
        self._device = link.device
        for route in _routes_on(self._family, link):
            if route == _route(route.address, route.source, route.table):
                image[_key(route)] = route.source
                self._sources.add(route.source)
            else:
                self._strays.setdefault(_key(route), []).append(route)
        image.update(dict.fromkeys(self._strays, _ALTERED))
        return {key: value for key, value in image.items() if key not in self._leaving}

    def put(self, changes: Changes) -> None:
        """Put addresses on the link, which is made where it is missing; then what leads there."""
        self._leaving -= changes.put.keys()
        wanted = list(_routes(changes.put))
        if wanted:
            self._sources.update(route.source for route in wanted)
            with self._shared.kept:
                link = dummy_links.raised(LINK)
                self._catch_up()  # it is not somebody else who made it
                self._device = link.device
                self._routes.delete(link.device, self._taken_strays(wanted))
                self._routes.put(link.device, wanted)
        if STEERING in changes.put:
            writer = self._routes.writer
            routing_rules.delete(writer, self._family, self._rules)
            routing_rules.put(writer, self._family, STEERING_RULE, protocol=PROTOCOL)
            self._rules = [STEERING_RULE]

    def drop(self, changes: Changes, but: Collection[bytes] = ()) -> None:
        """Take addresses from the link, behind what leads there.

        Those in `but`, packed, stay, and what leads there, until `release` is told otherwise.
        """
        self._leaving.update(key for key in changes.drop if _is_ours(key))
        self.release(but)

    def release(self, but: Collection[bytes]) -> None:
        """Take those addresses from the link that had to stay, save what still has to."""
        kept = {key for key in self._leaving if _raw_address(key) in but}
        if any(split_steered(key) is not None for key in kept):
            kept |= self._leaving & {STEERING}
        gone, self._leaving = self._leaving - kept, kept
        self._remove(gone)

    def leaving(self) -> frozenset[bytes]:
        """Return the addresses that are on the link for all packets, and for a while only."""
        found = map(split_address, self._leaving)
        return frozenset(address for address in found if address is not None)

    def _remove(self, keys: Collection[Key]) -> None:
        if STEERING in keys:
            routing_rules.delete(self._routes.writer, self._family, self._rules)
            self._rules = []
        unwanted = list(_routes(dict.fromkeys(keys, b"")))
        link = self._shared.find() if unwanted else None
        if link is not None:
            self._routes.delete(link.device, [*self._taken_strays(unwanted), *unwanted])

    def clean_up(self) -> int:
        """Remove all of it, and the link if the other family has nothing there; return how many."""
        rules = rules_to(self._family, TABLE)
        routing_rules.delete(self._routes.writer, self._family, rules)
        with self._shared.kept:
            link = self._shared.find()
            if link is None:
                return len(rules)
            mine = list(_routes_on(self._family, link))
            others = (family for family in Family if family is not self._family)
            if any(True for family in others for _ in _routes_on(family, link)):
                self._routes.delete(link.device, mine)
                return len(rules) + len(mine)
            return len(rules) + len(mine) + dummy_links.remove(link)

    def disturbed(self) -> bool:
        """Say whether others changed something of ours, or the node's addresses are others."""
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
        device = routed_device(self._family, event)
        if device is not None:
            return device == self._device
        if is_about(event, TABLE):
            return True
        lost = lost_address(event)
        if lost is not None:
            return lost in self._sources
        link = changed_link(event)
        if link is None or link.device != self._device:
            return False
        return link.name != LINK or not link.flags & LinkFlag.UP  # one that is gone was set down

    def _taken_strays(self, routes: Iterable[HostRoute]) -> list[HostRoute]:
        return [stray for route in routes for stray in self._strays.pop(_key(route), ())]


def _route(address: bytes, source: bytes, table: int) -> HostRoute:
    return HostRoute(address, source, PRIORITY, PROTOCOL, table)


def _routes(values: Mapping[Key, bytes]) -> Iterator[HostRoute]:
    for key, value in values.items():
        address, steered = split_address(key), split_steered(key)
        if address is not None:
            yield _route(address, value, LOCAL_TABLE)
        if steered is not None:
            yield _route(steered, value, TABLE)


def _is_ours(key: Key) -> bool:
    return key == STEERING or _raw_address(key) is not None


def _raw_address(key: Key) -> bytes | None:
    address = split_address(key)
    return split_steered(key) if address is None else address


def _key(route: HostRoute) -> bytes:
    raw_key = raw_address_key if route.table == LOCAL_TABLE else raw_steered_key
    return raw_key(route.address)


def _routes_on(family: Family, link: Link) -> Iterator[HostRoute]:
    for table in (LOCAL_TABLE, TABLE):
        yield from routes_on(family, link.device, table=table)
