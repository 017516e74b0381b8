"""API objects to forwarding tables, recompiling only what a change touches."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from kproxy.core.addresses import Family, Network, endpoint_text, family_of, family_of_network
from kproxy.core.claims import Conflict
from kproxy.core.family import NOTHING, Compiled, FamilyTable
from kproxy.core.node_rules import Surroundings, node_address, node_rules
from kproxy.core.objects import (
    EndpointSlice,
    Kind,
    Node,
    ObjectKey,
    PortSpec,
    Protocol,
    Service,
    ServiceCIDR,
)
from kproxy.core.occupied import Occupant, api_server, conflicts, health_checks
from kproxy.core.select import Selection, Where, by_port, local_ready_addresses, select
from kproxy.core.settings import ListensAt, Settings
from kproxy.core.store import Change, Connected, Difference, Store
from kproxy.core.table import (
    ForwardingTable,
    Frontend,
    HealthCheck,
    NodePort,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Use,
    Via,
    Vip,
)

_API_SERVER = ObjectKey("default", "kubernetes")  # the Service that it makes for itself
_EVERY_ADDRESS = ("0.0.0.0", "::")
_NO_SLICES: Mapping[ObjectKey, EndpointSlice] = {}


class Compiler:
    """Keeps the forwarding tables in step with the API objects.

    Owns the objects (a Store), the index of slices by Service, and one table for each family.
    Nothing is compiled before both Services and EndpointSlices were listed once: half the facts
    would refuse traffic that has endpoints.
    """

    def __init__(self, settings: Settings, families: Iterable[Family] = tuple(Family)) -> None:
        self._settings = settings
        self._store = Store()
        self._node_key = ObjectKey("", settings.node_name)
        self._slices: dict[ObjectKey, dict[ObjectKey, EndpointSlice]] = {}
        self._connected: frozenset[Network] = frozenset()
        self._rules = {family: node_rules(settings, Surroundings(), family) for family in families}
        self._families = {family: FamilyTable(family, each) for family, each in self._rules.items()}
        self._zone_hinted: set[ObjectKey] = set()
        self._started = False
        self._own_servers = tuple(map(_own_server, settings.listens_at))
        self._strangers: frozenset[Occupant] = frozenset()
        self._conflicts: frozenset[Conflict] = frozenset()
        self._conflicts_of: object = None  # what they were found from

    @property
    def tables(self) -> dict[Family, ForwardingTable]:
        """The tables as they are now; they change with the next `apply`."""
        return {family: each.table for family, each in self._families.items()}

    @property
    def ready(self) -> bool:
        """Whether the facts that a table needs are complete."""
        return self._store.listed(Kind.SERVICE) and self._store.listed(Kind.ENDPOINT_SLICE)

    @property
    def node(self) -> Node | None:
        """The Node object of this node, None while it is missing."""
        node = self._store.get(Kind.NODE, self._node_key)
        return node if isinstance(node, Node) else None

    def services(self) -> Iterable[Service]:
        """Return every valid Service, those that are not proxied included."""
        return [s for s in self._store.all(Kind.SERVICE) if isinstance(s, Service)]

    def service(self, key: ObjectKey) -> Service | None:
        """Return a valid Service, None if there is none of this name."""
        service = self._store.get(Kind.SERVICE, key)
        return service if isinstance(service, Service) else None

    def slices(self) -> Iterable[EndpointSlice]:
        """Return every valid EndpointSlice."""
        slices = self._store.all(Kind.ENDPOINT_SLICE)
        return (each for each in slices if isinstance(each, EndpointSlice))

    def slices_of(self, service: ObjectKey) -> Mapping[ObjectKey, EndpointSlice]:
        """Return the EndpointSlices that say that they belong to a Service, by their own keys."""
        return self._slices.get(service, _NO_SLICES)

    def listening(self, strangers: frozenset[Occupant]) -> None:
        """Take in what was seen to listen on this node, whoever it is."""
        if strangers != self._strangers:
            self._strangers = strangers

    def conflicts(self) -> frozenset[Conflict]:
        """Return the frontends that two service ports claim, over all families.

        And the ports of this node that something listens at and a Service takes away. The same set
        until one changes.
        """
        local = self._local_addresses()
        known = (*self._own_servers, *api_server(self.slices_of(_API_SERVER).values(), local))
        revisions = tuple(each.revision for each in self._families.values())
        state = (revisions, known, self._strangers, local)
        if state != self._conflicts_of:
            self._conflicts_of = state
            self._conflicts = frozenset(self._all_conflicts(known, local))
        return self._conflicts

    def _all_conflicts(
        self, known: tuple[Occupant, ...], local: tuple[str, ...]
    ) -> Iterator[Conflict]:
        for family in self._families.values():
            yield from family.claims.conflicts()
            named = (*known, *health_checks(family.table))
            yield from conflicts(family.table, named, self._strangers, local)

    def _local_addresses(self) -> tuple[str, ...]:
        node, bound = self.node, self._settings.bind_address
        return (*(node.addresses if node else ()), *([bound] if bound else []))

    def apply(
        self,
        changes: Iterable[Change],
        differed: Callable[[Difference], None] = lambda difference: None,
    ) -> dict[Family, TableChanges]:
        """Take changes in; return, for each family that they alter, what is different now.

        `differed` is told of each object that was added, altered or removed.
        """
        old_node = self.node
        dirty: set[ObjectKey] = set()
        surroundings = False
        for change in changes:
            if isinstance(change, Connected):
                self._connected = change.networks
                surroundings = True
                continue
            for difference in self._store.apply(change):
                differed(difference)
                dirty |= self._touched(difference)
                surroundings |= isinstance(difference.old or difference.new, (Node, ServiceCIDR))
        if surroundings:
            self._look_around()
        for key in dirty:
            self._note_hints(key)
        if not self.ready:
            return {}
        node = self.node
        dirty |= self._dependents_of_node(old_node, node)
        if not self._started:
            self._started = True
            dirty = {service.key for service in self.services()}
        where = Where(self._settings.node_name, node.zone if node else "")
        result = {}
        for family, table in self._families.items():
            own = node_address(self._settings, node, family)
            compiled = {key: self._compile(key, where, own, family) for key in dirty}
            changed = table.update(self._rules[family], compiled)
            if changed:
                result[family] = changed
        return result

    def _look_around(self) -> None:
        nodes = [each for each in self._store.all(Kind.NODE) if isinstance(each, Node)]
        cidrs = [c for c in self._store.all(Kind.SERVICE_CIDR) if isinstance(c, ServiceCIDR)]
        around = Surroundings(self.node, nodes, cidrs, self._connected)
        self._rules = {
            family: node_rules(self._settings, around, family) for family in self._families
        }

    def _touched(self, difference: Difference) -> set[ObjectKey]:
        """Index the slices that changed; return the Services to compile again."""
        touched: set[ObjectKey] = set()
        old, new = difference.old, difference.new
        if isinstance(old, EndpointSlice) and old.service is not None:
            slices = self._slices[old.service]
            del slices[old.key]
            if not slices:
                del self._slices[old.service]
            touched.add(old.service)
        if isinstance(new, EndpointSlice) and new.service is not None:
            self._slices.setdefault(new.service, {})[new.key] = new
            touched.add(new.service)
        touched |= {each.key for each in (old, new) if isinstance(each, Service)}
        return touched

    def _note_hints(self, key: ObjectKey) -> None:
        slices = self.slices_of(key).values()
        if any(e.zone_hints for each in slices for e in each.endpoints):
            self._zone_hinted.add(key)
        else:
            self._zone_hinted.discard(key)

    def _dependents_of_node(self, old: Node | None, new: Node | None) -> set[ObjectKey]:
        """Return the Services whose result depends on what changed about the Node."""
        dirty: set[ObjectKey] = set()
        if (old.zone if old else "") != (new.zone if new else ""):
            dirty |= self._zone_hinted
        if (old.addresses if old else ()) != (new.addresses if new else ()):
            dirty |= {s.key for s in self.services() if s.source_ranges}
        return dirty

    def _compile(
        self, key: ObjectKey, where: Where, own_address: str | None, family: Family
    ) -> Compiled:
        service = self.service(key)
        if service is None:
            return NOTHING
        if not self._settings.external_ips:
            service = replace(service, external_ips=())
        slices = self.slices_of(key)
        return compile_service(service, slices, where, own_address, family)


def _own_server(server: ListensAt) -> Occupant:
    field, address, port = server
    name = f"kproxy's {field} {endpoint_text(address, port)}"
    return Occupant("" if address in _EVERY_ADDRESS else address, Protocol.TCP, port, name)


def compile_service(
    service: Service,
    slices: Mapping[ObjectKey, EndpointSlice],
    where: Where,
    own_address: str | None,
    family: Family,
) -> Compiled:
    """Return what one Service yields in one family; `slices` are its own, of any family.

    `frontends` are all that the Service claims, whoever else claims them too.
    """
    cluster_ip = next((a for a in service.cluster_ips if family_of(a) is family), None)
    if service.not_proxied is not None or cluster_ip is None:
        return NOTHING
    mine = [slices[key] for key in sorted(slices) if slices[key].family is family]
    sources = _sources(service, own_address, family)
    check = None
    if service.health_check_node_port:
        count = len(local_ready_addresses(mine, where))
        check = HealthCheck(service.health_check_node_port, count)
    entries = []
    offers = by_port(mine)
    for port in service.ports:
        own = offers.get((port.name, port.protocol), ())
        selection = select(own, port.protocol, where)
        frontends = _frontends(service, port, cluster_ip, family)
        entries.append(_service_port(service, port, frontends, selection, sources))
    return Compiled(tuple(entries), cluster_ip, check)


def _service_port(
    service: Service,
    port: PortSpec,
    frontends: tuple[Frontend, ...],
    selection: Selection,
    sources: tuple[Network, ...] | None,
) -> ServicePort:
    internal = _use(selection, local=service.internal_local)
    external = _use(selection, local=service.external_local)
    accessible = len(frontends) > 1
    uses_local = service.internal_local or (service.external_local and accessible)
    return ServicePort(
        key=ServicePortKey(service.key.namespace, service.key.name, port.name, port.protocol),
        frontends=frontends,
        internal=internal,
        external=external,
        external_local=service.external_local,
        targets=selection.cluster if accessible or not service.internal_local else (),
        local_targets=selection.local if uses_local else (),
        sources=sources,
        affinity_timeout_s=service.affinity_timeout_s,
        serving=selection.serving,
    )


def _use(selection: Selection, *, local: bool) -> Use:
    if not selection.cluster:
        return Use.REJECT
    if not local:
        return Use.TARGETS
    return Use.LOCAL_TARGETS if selection.local else Use.DROP


def _frontends(
    service: Service, port: PortSpec, cluster_ip: str, family: Family
) -> tuple[Frontend, ...]:
    vips = [Vip(Via.CLUSTER_IP, cluster_ip, port.port)]
    vips += [Vip(Via.EXTERNAL_IP, a, port.port) for a in service.external_ips]
    vips += [Vip(Via.LOAD_BALANCER, a, port.port) for a in service.load_balancer_ips]
    frontends: list[Frontend] = [vip for vip in vips if family_of(vip.address) is family]
    if port.node_port:
        frontends.append(NodePort(port.node_port))
    return tuple(frontends)


def _sources(
    service: Service, own_address: str | None, family: Family
) -> tuple[Network, ...] | None:
    """Return who may use the load-balancer addresses, None for everyone (reference 1.4).

    Ranges that admit this node admit its load-balancer addresses as sources too: an address that
    is bound on this node is what the node itself would then send from.
    """
    ranges = [r for r in service.source_ranges if family_of_network(r) is family]
    if not ranges or any(r.prefixlen == 0 for r in ranges):
        return None
    if own_address is not None and any(ipaddress.ip_address(own_address) in r for r in ranges):
        vips = (a for a in service.load_balancer_ips if family_of(a) is family)
        ranges += [ipaddress.ip_network(vip) for vip in vips]
    return tuple(sorted(set(ranges), key=lambda r: (int(r.network_address), r.prefixlen)))
