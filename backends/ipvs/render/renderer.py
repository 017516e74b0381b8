"""Forwarding table to the objects that ipvs mode keeps in the kernel, pure.

What carries which part of the table:

- A virtual server at each address and port of a frontend that forwards, its destinations the
  endpoints of the one list that outsiders get. A NodePort has one at each of the node's addresses
  that it holds at, so those are among what is rendered.
- A virtual server of a firewall mark for a service port with externalTrafficPolicy Local: all
  endpoints, for local pods and the node itself, which that policy does not bind.
- clusterIPs are on a dummy link as local routes: so packets to them come to the node, where ipvs
  is, and the node speaks to them from its own address.
- External addresses and those of load balancers are there in a table of their own, for packets of
  our mark alone: those to a frontend. All others pass, as it is somebody else who has the address.
- Sets say what kind of frontend is where, for the rules (see rules.py and sets.py): masquerade,
  source ranges, and who is refused or dropped.

An address that the node has by itself is not put on the link, and what is no frontend there passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from backends.ipvs.render import rules, service_port
from backends.ipvs.render.entries import (
    STEERING,
    Destination,
    MarkedServer,
    Member,
    Place,
    Source,
    address_key,
    entry,
    member_key,
    packed,
    port_bytes,
    server_key,
    somebody_elses,
    steered_key,
)
from backends.ipvs.render.marks import Marks
from backends.ipvs.render.service_port import HASHING, Options, wants_mark
from backends.ipvs.render.sets import SetKind, sets
from backends.kernel.xtables.wording import fingerprint, signed
from kproxy.core.addresses import Family, is_loopback
from kproxy.core.health_ports import PortsInUse
from kproxy.core.image import Key
from kproxy.core.objects import Protocol
from kproxy.core.resolve import admits_node_port
from kproxy.core.table import (
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Via,
    Vip,
)

Patch = dict[Key, bytes | None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a family's image depends on besides the table.

    - `addresses` are the node's own, canonical, and `source` the one that it speaks to others from.
    - `taken`: where somebody else has a virtual server. What a Service has there is left out.
    """

    addresses: frozenset[str] = frozenset()
    source: str | None = None
    taken: frozenset[Place] = frozenset()


class Renderer:
    """One family's image, kept up to date change by change."""

    def __init__(self, family: Family, options: Options) -> None:
        self._family = family
        self._options = options
        self._rules: NodeRules | None = None
        self._around = Surroundings()
        self._node_addresses: frozenset[str] = frozenset()  # where NodePorts hold
        self._service_ports: dict[ServicePortKey, ServicePort] = {}
        self._vips: dict[Place, ServicePortKey] = {}
        self._node_ports: dict[tuple[Protocol, int], ServicePortKey] = {}
        self._users: Counter[str] = Counter()  # frontends at an address
        self._cluster_ips: set[str] = set()
        self._steered: set[str] = set()
        self._health_ports = PortsInUse()
        self._marks = Marks()
        self._chains: Mapping[Key, tuple[str, ...]] = {}
        self._jumps = rules.jumps()
        self._unheld: dict[ServicePortKey, str] = {}
        self._displaced: dict[ServicePortKey, list[Place]] = {}  # by virtual servers of others

    def update(self, changes: TableChanges, around: Surroundings) -> Patch:
        """Take changes in; return the image entries that they may alter, None where gone."""
        patch: Patch = {}
        if changes.rules is not None:
            self._take_rules(changes.rules, patch)
        if self._rules is None:
            raise ValueError("the first changes of a table must bring its node rules")
        node_addresses = _node_addresses(self._rules, around)
        freed_or_taken = self._around.taken ^ around.taken
        former_marks = self._take_marks(changes.service_ports)
        affected = {
            *changes.service_ports,
            *former_marks,
            *self._behind(changes.service_ports, node_addresses),
            *filter(None, map(self._owner_at, freed_or_taken)),
        }
        for key in affected:
            mark = former_marks[key] if key in former_marks else self._marks.get(key)
            patch.update((each, None) for each, _ in self._entries(key, mark))
        self._node_addresses = node_addresses
        before, self._around = self._around, around
        touched = self._take_service_ports(changes.service_ports)
        touched |= {place.address for place in freed_or_taken}
        for key in affected:
            patch.update(self._entries(key, self._marks.get(key)))
            self._find_displaced(key)
        self._take_addresses(changes.cluster_ips, touched, before, patch)
        for port, used in self._health_ports.update(changes.health_checks).items():
            patch[member_key(SetKind.HEALTH, port_bytes(port))] = b"" if used else None
        return patch

    def chain(self, key: Key) -> tuple[str, ...]:
        """Return the rules of one of our chains, signed. Raises KeyError for an unknown one."""
        return signed(self._chains[key])

    def jump(self, key: Key) -> str:
        """Return our rule for a built-in chain, signed."""
        return signed((self._jumps[key],))[0]

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports of which something is not rendered, and what and why."""
        displaced = {k: somebody_elses(found) for k, found in self._displaced.items()}
        return {**self._unheld, **displaced}

    def has_frontend_at(self, server: bytes) -> bool:
        """Say whether a Service has the place of a virtual server, whoever's that is."""
        return self._owner(server_key(server)) is not None

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these objects are made for."""
        found = (self._owner(key) for key in keys if isinstance(key, bytes))
        return frozenset(key for key in found if key is not None)

    def _owner(self, key: bytes) -> ServicePortKey | None:
        match entry(key):
            case MarkedServer(mark) | Destination(MarkedServer(mark)):
                return self._marks.owner(mark)
            case Place() as place:
                return self._owner_at(place)
            case (
                Destination(Place() as place)
                | Member(_, Place() as place)
                | Member(_, Source(Place() as place))
            ):
                return self._owner_at(place)
        return None

    def _owner_at(self, place: Place) -> ServicePortKey | None:
        owner = self._vips.get(place)
        if owner is None and place.address in self._node_addresses:
            owner = self._node_ports.get((place.protocol, place.port))
        return owner

    def _take_rules(self, new: NodeRules, patch: Patch) -> None:
        if self._rules is None:
            patch.update(sets(self._family))
            patch.update((key, fingerprint((rule,)).encode()) for key, rule in self._jumps.items())
        self._rules = new
        self._chains = rules.chains(self._family, new)
        patch.update((key, fingerprint(chain).encode()) for key, chain in self._chains.items())

    def _take_marks(
        self, service_ports: Mapping[ServicePortKey, ServicePort | None]
    ) -> Mapping[ServicePortKey, int | None]:
        """Return what those had whose mark is another now."""
        wanting = {k for k, new in service_ports.items() if new is not None and wants_mark(new)}
        having = {key for key in service_ports if key in self._marks}
        return self._marks.replace(having - wanting, wanting - having)

    def _behind(
        self,
        service_ports: Mapping[ServicePortKey, ServicePort | None],
        node_addresses: frozenset[str],
    ) -> Iterator[ServicePortKey]:
        """Yield the service ports whose NodePorts hold elsewhere now: a Vip goes before them."""
        if node_addresses != self._node_addresses:
            yield from self._node_ports.values()
            return
        for key, new in service_ports.items():
            for each in (self._service_ports.get(key), new):
                for _, place in _vips(each):
                    owner = self._node_ports.get((place.protocol, place.port))
                    if owner is not None and place.address in node_addresses:
                        yield owner

    def _take_service_ports(
        self, service_ports: Mapping[ServicePortKey, ServicePort | None]
    ) -> set[str]:
        """Return the addresses at which there are more frontends or fewer.

        All removals come first: a frontend may go from one service port to another.
        """
        touched: set[str] = set()
        for key in service_ports:
            old = self._service_ports.pop(key, None)
            self._unheld.pop(key, None)
            for _, place in _vips(old):
                self._vips.pop(place, None)
                self._users[place.address] -= 1
                touched.add(place.address)
            for port in _node_ports(old):
                self._node_ports.pop((key.protocol, port), None)
        for key, new in service_ports.items():
            if new is None:
                continue
            self._service_ports[key] = new
            for _, place in _vips(new):
                self._vips[place] = key
                self._users[place.address] += 1
                touched.add(place.address)
            for port in _node_ports(new):
                self._node_ports[key.protocol, port] = key
            if new.affinity_timeout_s is not None and key in self._marks:
                self._unheld[key] = _BY_HASH if self._options.hashes else _NO_HASH
        return touched

    def _take_addresses(
        self,
        cluster_ips: Mapping[str, bool],
        touched: set[str],
        before: Surroundings,
        patch: Patch,
    ) -> None:
        around = self._around
        for address, known in cluster_ips.items():
            (self._cluster_ips.add if known else self._cluster_ips.discard)(address)
        taken = Counter(place.address for place in around.taken)
        taken_from = Counter(place.address for place in around.taken if place in self._vips)
        touched |= cluster_ips.keys() | (before.addresses ^ around.addresses)
        if before.source != around.source:
            touched |= self._users.keys()
        source = packed(around.source) if around.source else b""
        for address in touched:
            used = self._users[address] > taken_from[address]
            if not self._users[address]:
                del self._users[address]
            is_own = address in around.addresses
            is_cluster_ip = address in self._cluster_ips
            refusing = is_cluster_ip and not is_own
            steered = used and not is_cluster_ip and not is_own
            (self._steered.add if steered else self._steered.discard)(address)
            patch[address_key(address)] = source if used and refusing else None
            patch[steered_key(address)] = b"" if steered else None
            for kind, present in (
                (SetKind.STEERED_ADDRESSES, steered),
                (SetKind.CLUSTER_ADDRESSES, refusing and not taken[address]),
            ):
                patch[member_key(kind, packed(address))] = b"" if present else None
        patch[STEERING] = b"" if self._steered else None

    def _entries(self, key: ServicePortKey, mark: int | None) -> Iterator[tuple[Key, bytes]]:
        known = self._service_ports.get(key)
        if known is not None:
            taken = self._around.taken
            places = ((via, place) for via, place in self._places(known) if place not in taken)
            yield from service_port.entries(known, places, mark, self._options)

    def _find_displaced(self, key: ServicePortKey) -> None:
        known, taken = self._service_ports.get(key), self._around.taken
        found = [place for _, place in self._places(known) if place in taken] if known else []
        if found:
            self._displaced[key] = found
        else:
            self._displaced.pop(key, None)

    def _places(self, known: ServicePort) -> Iterator[tuple[Via, Place]]:
        yield from _vips(known)
        for port in _node_ports(known):
            for address in self._node_addresses:
                place = Place(address, known.key.protocol, port)
                if place not in self._vips:
                    yield Via.NODE_PORT, place


_BY_HASH = (
    "sessionAffinity of local pods and the node itself is by a hash of the client's address at "
    "frontends with externalTrafficPolicy Local, and has no timeout"
)
_NO_HASH = (
    "sessionAffinity of local pods and the node itself is off at frontends with "
    f"externalTrafficPolicy Local: the kernel has no scheduler {HASHING}"
)


def _node_addresses(rules: NodeRules, around: Surroundings) -> frozenset[str]:
    return frozenset(
        address
        for address in around.addresses
        if not is_loopback(address) and admits_node_port(rules, address)
    )


def _vips(known: ServicePort | None) -> Iterator[tuple[Via, Place]]:
    for frontend in known.frontends if known is not None else ():
        if isinstance(frontend, Vip) and known is not None:
            place = Place(frontend.address, known.key.protocol, frontend.port)
            yield frontend.via, place


def _node_ports(known: ServicePort | None) -> Iterator[int]:
    for frontend in known.frontends if known is not None else ():
        if isinstance(frontend, NodePort):
            yield frontend.port
