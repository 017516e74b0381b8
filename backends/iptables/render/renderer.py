"""Forwarding table to iptables chains, pure.

nat
    PREROUTING, OUTPUT -> KPROXY-SERVICES: a tree over (address, protocol, port), then, for the
    node's own addresses, KPROXY-NODEPORTS: a tree over (protocol, port). Both lead to the chains
    of a service port (see services.py), which end in DNAT or ACCEPT, and on the way there may lead
    to KPROXY-MARK, which asks for masquerade.
    POSTROUTING -> KPROXY-POSTROUTING: masquerade of what was marked and of hairpins; where one
    rule cannot tell those, KPROXY-HAIRPIN: a tree over the endpoints' addresses.
filter, for new connections that nat did not translate
    INPUT, FORWARD, OUTPUT -> KPROXY-FILTER. In order: KPROXY-VERDICTS, a tree like the one in nat
    with the frontends that are refused or dropped; for the node's own addresses KPROXY-NODEFILTER
    and KPROXY-NODEVERDICTS, the same for NodePorts, and no more; KPROXY-CLUSTERIPS, which refuses
    clusterIPs without that port; a RETURN for what in a ServiceCIDR is somebody's, and a DROP for
    the rest of it.
    INPUT -> KPROXY-HEALTH: healthCheckNodePorts are let in.
    INPUT -> KPROXY-LOCALNET: no loopback addresses from outside, while route_localnet is on.
    FORWARD -> KPROXY-FORWARD: masqueraded traffic and all that belongs to translated connections
    is let through.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from backends.iptables.render import node, services
from backends.iptables.render.affinity import AffinityBudget
from backends.iptables.render.dispatch import Dispatch
from backends.iptables.render.left_out import LeftOut
from backends.iptables.render.masquerade import Masquerade
from backends.iptables.render.owners import owners
from backends.iptables.render.rules import (
    NEVER,
    TRANSLATED,
    AffinitySet,
    Feature,
    Options,
    reject,
    set_value,
)
from backends.kernel.xtables.wording import (
    chain_key,
    fingerprint,
    jump_key,
    set_key,
    signed,
    split_key,
    unallocated,
)
from kproxy.core.addresses import Family
from kproxy.core.health_ports import PortsInUse
from kproxy.core.image import Key
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    NodePort,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
)

_JUMPS = {
    ("filter", "INPUT", "KPROXY-LOCALNET"): "",
    ("filter", "INPUT", "KPROXY-HEALTH"): "-m conntrack --ctstate NEW",
    ("filter", "INPUT", "KPROXY-FILTER"): "-m conntrack --ctstate NEW",
    ("filter", "FORWARD", "KPROXY-FILTER"): "-m conntrack --ctstate NEW",
    ("filter", "OUTPUT", "KPROXY-FILTER"): "-m conntrack --ctstate NEW",
    ("filter", "FORWARD", "KPROXY-FORWARD"): "",
    ("nat", "PREROUTING", "KPROXY-SERVICES"): "",
    ("nat", "OUTPUT", "KPROXY-SERVICES"): "",
    ("nat", "POSTROUTING", "KPROXY-POSTROUTING"): "",
}
# A service port with more chains than this is kept as text while it is being written: asking for
# its chains one by one would render all of them each time.
_MANY_CHAINS = 8


class Renderer:
    """One family's image, kept up to date change by change.

    Holds the service ports and the trees, never the text of rules: that is made again for the
    chains that are written.
    """

    def __init__(self, family: Family, options: Options) -> None:
        self._family = family
        self._options = options
        self._rules: NodeRules | None = None
        self._drop_invalid = True
        self._service_ports: dict[ServicePortKey, ServicePort] = {}
        self._health_ports = PortsInUse()
        self._owner_of_chain: dict[str, ServicePortKey] = {}
        self._owner_of_set: dict[str, ServicePortKey] = {}
        self._rendered: dict[ServicePortKey, services.Chains] = {}
        self._settled: tuple[object, ...] = (None,)
        self._affinity = AffinityBudget(impossible=options.without.get(Feature.AFFINITY, ""))
        self._without_affinity: frozenset[ServicePortKey] = frozenset()
        self._left_out = LeftOut(options)
        self._nat_vips = Dispatch("DV", family)
        self._nat_ports = Dispatch("DN", None)
        self._filter_vips = Dispatch("FV", family)
        self._filter_ports = Dispatch("FN", None)
        self._cluster_ips = Dispatch("FC", family, ports=False)
        self._health = Dispatch("FH", None)
        self._masquerade = Masquerade(family, options)

    @property
    def localhost(self) -> bool:
        """Whether the rules serve NodePorts on IPv4 loopback, which needs route_localnet."""
        return self._rules is not None and node.serves_loopback(self._rules, self._family)

    @property
    def counts(self) -> bool:
        """Whether rules feed the counters of `accounting`."""
        return self._options.counts

    def update(
        self, changes: TableChanges, *, drop_invalid: bool = True
    ) -> dict[Key, bytes | None]:
        """Take changes in; return the image entries that they may alter, None where gone.

        `drop_invalid` drops forwarded packets that connection tracking finds invalid, which keeps
        a reset for an unknown connection from reaching a client that never opened it.
        """
        patch: dict[Key, bytes | None] = {}
        self._drop_invalid = drop_invalid
        self._rendered.clear()
        service_ports: Mapping[ServicePortKey, ServicePort | None] = changes.service_ports
        if changes.rules is not None:
            if self._rules is None or services.depend_on(self._rules, changes.rules):
                service_ports = {**self._service_ports, **service_ports}
            self._rules = changes.rules
        if self._rules is None:
            raise ValueError("the first changes of a table must bring its node rules")
        context = services.Context(self._family, self._rules, self._options)
        service_ports = self._left_out.sift(service_ports)
        without_affinity = self._affinity.update(service_ports)
        switched = (without_affinity ^ self._without_affinity) & self._service_ports.keys()
        service_ports = {**{key: self._service_ports[key] for key in switched}, **service_ports}
        # All removals come first: a frontend may go from one service port to another.
        for key in service_ports:
            self._remove(key, context, patch)
        self._without_affinity = without_affinity
        for key, new in service_ports.items():
            if new is not None:
                self._add(key, new, context, patch)
        for address, known in changes.cluster_ips.items():
            self._cluster_ips.put(("-j KPROXY-REJECT",) if known else None, address=address)
        for port, used in self._health_ports.update(changes.health_checks).items():
            self._health.put(("-j ACCEPT",) if used else None, protocol=Protocol.TCP, port=port)
        self._settle(patch)
        return patch

    def chain(self, key: Key) -> tuple[str, ...]:
        """Return the rules of one of our chains, signed. Raises KeyError for an unknown one."""
        table, chain = split_key(key)
        return signed(self._chain(table, chain))

    def owner(self, key: Key) -> ServicePortKey | None:
        """Return the service port that a chain belongs to, None if it is in front of them all."""
        table, chain = split_key(key)
        return self._owner_of_chain.get(chain) if table == "nat" else None

    def jump(self, key: Key) -> str:
        """Return our rule for a built-in chain, signed."""
        _, table, base, chain = split_key(key)
        return signed((self._jump_rule(table, base, chain),))[0]

    def affinity_set(self, key: Key) -> AffinitySet:
        """Return an ipset of ours. Raises KeyError for an unknown one."""
        _, name = split_key(key)
        timeout_s = self._entry(self._owner_of_set[name]).affinity_timeout_s
        if timeout_s is None:
            raise KeyError(name)
        return AffinitySet(name, self._family, timeout_s)

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports of which something is not rendered, and what and why."""
        return self._left_out.reasons() | self._affinity.reasons()

    def cannot_remember(self, sets: Mapping[str, str]) -> None:
        """Render the owners of these ipsets, named with the kernel's reasons, without any.

        That shows in the next update.
        """
        self._affinity.refuse({self._owner_of_set[name]: why for name, why in sets.items()})

    def first_without_ipsets(self) -> ServicePortKey | None:
        """Return a service port that goes without because the kernel refused, None if none does."""
        return self._affinity.first_refused()

    def affinity_sets(self, key: ServicePortKey) -> list[AffinitySet]:
        """Return the ipsets that a service port wants."""
        return list(services.affinity_sets(self._service_ports[key], self._family))

    def can_remember(self, key: ServicePortKey) -> None:
        """Render a service port with its ipsets again, from the next update on."""
        self._affinity.allow(key)

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these chains and ipsets are made for."""
        own = ChainMap(self._owner_of_set, self._owner_of_chain)
        return owners(keys, own, (tree for table, tree in self._trees() if table == "nat"))

    def _entry(self, key: ServicePortKey) -> ServicePort:
        """Return a service port as it is rendered."""
        entry = self._service_ports[key]
        return replace(entry, affinity_timeout_s=None) if key in self._without_affinity else entry

    def _remove(
        self, key: ServicePortKey, context: services.Context, patch: dict[Key, bytes | None]
    ) -> None:
        if key not in self._service_ports:
            return
        old = self._entry(key)
        del self._service_ports[key]
        for name in services.chains(old, context):
            self._owner_of_chain.pop(name, None)
            patch[chain_key("nat", name)] = None
        for each in services.affinity_sets(old, self._family):
            self._owner_of_set.pop(each.name, None)
            patch[set_key(each.name)] = None
        self._replace_frontends(old, context, present=False)
        self._masquerade.remove(old)

    def _add(
        self,
        key: ServicePortKey,
        new: ServicePort,
        context: services.Context,
        patch: dict[Key, bytes | None],
    ) -> None:
        self._service_ports[key] = new
        new = self._entry(key)
        for name, rules in services.chains(new, context).items():
            self._owner_of_chain[name] = key
            patch[chain_key("nat", name)] = fingerprint(rules).encode()
        for each in services.affinity_sets(new, self._family):
            self._owner_of_set[each.name] = key
            patch[set_key(each.name)] = set_value(each)
        self._replace_frontends(new, context, present=True)
        self._masquerade.add(new)

    def _replace_frontends(
        self, entry: ServicePort, context: services.Context, *, present: bool
    ) -> None:
        protocol = entry.key.protocol
        for via, frontend in entry.by_kind():
            nat = services.nat_rules(entry, via, context) if present else None
            unserved = services.filter_rules(entry, via, context) if present else ()
            if isinstance(frontend, NodePort):
                self._nat_ports.put(nat, protocol=protocol, port=frontend.port)
                self._filter_ports.put(unserved or None, protocol=protocol, port=frontend.port)
                continue
            address, port = frontend.address, frontend.port
            self._nat_vips.put(nat, address=address, protocol=protocol, port=port)
            self._filter_vips.put(unserved or None, address=address, protocol=protocol, port=port)

    def _settle(self, patch: dict[Key, bytes | None]) -> None:
        """Carry the edits into the trees, and render the chains that stand in front of them."""
        for table, dispatch in self._trees():
            for name, rules in dispatch.settle().items():
                patch[chain_key(table, name)] = fingerprint(rules).encode() if rules else None
        state = (self._rules, self._drop_invalid, *(dispatch.root for _, dispatch in self._trees()))
        if all(now is before for now, before in zip(state, self._settled, strict=False)):
            return
        self._settled = state
        for table, name in _FIXED:
            wanted = self._wants(name)
            fixed = fingerprint(self._chain(table, name)).encode() if wanted else None
            patch[chain_key(table, name)] = fixed
        for table, base, chain in _JUMPS:
            wanted = self._wants(chain)
            rule = fingerprint((self._jump_rule(table, base, chain),)).encode()
            patch[jump_key(table, base, chain)] = rule if wanted else None

    def _wants(self, chain: str) -> bool:
        """Say whether a chain that stands in front of the trees is needed."""
        hairpins = self._masquerade.lists_hairpins
        return {"KPROXY-LOCALNET": self.localhost, "KPROXY-HAIRPIN": hairpins}.get(chain, True)

    def _trees(self) -> Iterator[tuple[str, Dispatch]]:
        yield "nat", self._nat_vips
        yield "nat", self._nat_ports
        yield "nat", self._masquerade.tree
        yield "filter", self._filter_vips
        yield "filter", self._filter_ports
        yield "filter", self._cluster_ips
        yield "filter", self._health

    def _jump_rule(self, table: str, base: str, chain: str) -> str:
        return f"{_JUMPS[table, base, chain]} -j {chain}".lstrip()

    def _chain(self, table: str, chain: str) -> tuple[str, ...]:
        fixed = _FIXED.get((table, chain))
        if fixed is not None:
            return tuple(fixed(self))
        for tree_table, dispatch in self._trees():
            if table == tree_table and chain in dispatch:
                return dispatch.chain(chain)
        if table != "nat":
            raise KeyError(chain)
        return self._service_chains(self._owner_of_chain[chain])[chain]

    def _service_chains(self, key: ServicePortKey) -> services.Chains:
        if key in self._rendered:
            return self._rendered[key]
        context = services.Context(self._family, self._known_rules(), self._options)
        chains = services.chains(self._entry(key), context)
        if len(chains) > _MANY_CHAINS:
            self._rendered[key] = chains
        return chains

    def _services(self) -> Iterator[str]:
        yield from self._nat_vips.root_rules()
        yield from node.to_node_ports(self._known_rules(), self._family, "KPROXY-NODEPORTS")

    def _node_ports(self) -> Iterator[str]:
        yield from self._nat_ports.root_rules() or (NEVER,)

    def _known_rules(self) -> NodeRules:
        if self._rules is None:
            raise ValueError("nothing was rendered yet")
        return self._rules

    def _filter(self) -> Iterator[str]:
        """Return the order of verdicts.

        The trees are behind jumps and hold nothing but verdicts: while a change is under way, old
        and new rules stand side by side in them, and no rule here may cut those off.
        """
        yield f"{TRANSLATED} -j RETURN"
        yield "-j KPROXY-VERDICTS"
        yield "-m addrtype --dst-type LOCAL -g KPROXY-NODEFILTER"
        yield "-j KPROXY-CLUSTERIPS"
        yield from unallocated(self._known_rules())

    def _verdicts(self) -> Iterator[str]:
        yield from self._filter_vips.root_rules() or (NEVER,)

    def _node_filter(self) -> Iterator[str]:
        yield from node.to_node_ports(self._known_rules(), self._family, "KPROXY-NODEVERDICTS")

    def _node_verdicts(self) -> Iterator[str]:
        yield from self._filter_ports.root_rules() or (NEVER,)

    def _cluster_ip_rules(self) -> Iterator[str]:
        """Return what becomes of a clusterIP that has no such port."""
        yield from self._cluster_ips.root_rules() or (NEVER,)

    def _refuse(self) -> Iterator[str]:
        for protocol in (Protocol.TCP, Protocol.UDP):
            target = reject(protocol, self._family, self._options)
            yield f"-p tcp {target}" if protocol is Protocol.TCP else target

    def _health_rules(self) -> Iterator[str]:
        yield from self._health.root_rules() or (NEVER,)

    def _localnet(self) -> Iterator[str]:
        """Guard what route_localnet opens (CVE-2020-8558): loopback stays the node's own.

        Traffic over lo is the node's own, whichever of its addresses it comes from. A source in
        127.0.0.0/8 proves nothing: with route_localnet a neighbour's forgery gets this far.
        """
        yield (
            f"! -i lo -d {node.LOOPBACK[self._family]} "
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        )


_FIXED: Mapping[tuple[str, str], Callable[[Renderer], Iterator[str]]] = {
    ("nat", "KPROXY-SERVICES"): Renderer._services,
    ("nat", "KPROXY-NODEPORTS"): Renderer._node_ports,
    ("nat", "KPROXY-MARK"): lambda r: r._masquerade.mark(),
    ("nat", "KPROXY-POSTROUTING"): lambda r: r._masquerade.postrouting(),
    ("nat", "KPROXY-HAIRPIN"): lambda r: r._masquerade.hairpins(),
    ("nat", "KPROXY-MASQUERADE"): lambda r: r._masquerade.masquerade(localhost=r.localhost),
    ("filter", "KPROXY-FILTER"): Renderer._filter,
    ("filter", "KPROXY-VERDICTS"): Renderer._verdicts,
    ("filter", "KPROXY-NODEFILTER"): Renderer._node_filter,
    ("filter", "KPROXY-NODEVERDICTS"): Renderer._node_verdicts,
    ("filter", "KPROXY-CLUSTERIPS"): Renderer._cluster_ip_rules,
    ("filter", "KPROXY-REJECT"): Renderer._refuse,
    ("filter", "KPROXY-HEALTH"): Renderer._health_rules,
    ("filter", "KPROXY-FORWARD"): lambda r: r._masquerade.forward(drop_invalid=r._drop_invalid),
    ("filter", "KPROXY-LOCALNET"): Renderer._localnet,
}
