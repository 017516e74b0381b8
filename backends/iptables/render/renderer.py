"""Forwarding table to iptables chains, pure.

nat
    PREROUTING, OUTPUT -> KPROXY-SERVICES: a tree over (address, protocol, port), then, for the
    node's own addresses, KPROXY-NODEPORTS: a tree over (protocol, port). Both lead to the chains
    of a service port (see services.py), which end in DNAT or ACCEPT.
    POSTROUTING -> KPROXY-POSTROUTING: masquerade of what was marked and of hairpins.
filter, for new connections that nat did not translate
    INPUT, FORWARD, OUTPUT -> KPROXY-FILTER. In order: KPROXY-VERDICTS, a tree like the one in nat
    with the frontends that are refused or dropped; for the node's own addresses KPROXY-NODEFILTER
    and KPROXY-NODEVERDICTS, the same for NodePorts, and no more; KPROXY-CLUSTERIPS, which refuses
    clusterIPs without that port; a RETURN for what in a ServiceCIDR is somebody's, and a DROP for
    the rest of it.
    INPUT -> KPROXY-HEALTH: healthCheckNodePorts are let in.
    INPUT -> KPROXY-LOCALNET: no loopback addresses from outside, while route_localnet is on.
    FORWARD -> KPROXY-FORWARD: masqueraded and established traffic is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from backends.iptables.render import node, services
from backends.iptables.render.affinity import AffinityBudget
from backends.iptables.render.dispatch import Dispatch
from backends.iptables.render.health import PortsInUse
from backends.iptables.render.rules import (
    Account,
    AffinitySet,
    Options,
    chain_key,
    counting,
    fingerprint,
    jump_key,
    port_unreachable,
    set_key,
    set_value,
    signed,
    split_key,
)
from kproxy.core.addresses import Family
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
# A chain needs a rule to carry its digest. This one never applies: no packet goes to port 0.
_NEVER = "-p tcp --dport 0 -j RETURN"

# A service port with more chains than this is kept as text while it is being written: asking for
# its chains one by one would render all of them each time.
_MANY_CHAINS = 8

# Classic BPF over the network header (linux/filter.h): match if source equals destination.
# Each pair of words is loaded at its offset and compared; a difference jumps to the last `ret 0`.
_RETURN_TO_SENDER = {
    Family.IPV4: "6,32 0 0 12,7 0 0 0,32 0 0 16,29 0 1 0,6 0 0 65535,6 0 0 0",
    Family.IPV6: (
        "18,32 0 0 8,7 0 0 0,32 0 0 24,29 0 13 0,32 0 0 12,7 0 0 0,32 0 0 28,29 0 9 0,"
        "32 0 0 16,7 0 0 0,32 0 0 32,29 0 5 0,32 0 0 20,7 0 0 0,32 0 0 36,29 0 1 0,"
        "6 0 0 65535,6 0 0 0"
    ),
}


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
        self._affinity = AffinityBudget()
        self._without_affinity: frozenset[ServicePortKey] = frozenset()
        self._nat_vips = Dispatch("DV", family)
        self._nat_ports = Dispatch("DN", None)
        self._filter_vips = Dispatch("FV", family)
        self._filter_ports = Dispatch("FN", None)
        self._cluster_ips = Dispatch("FC", family, ports=False)
        self._health = Dispatch("FH", None)

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

    @property
    def without_affinity(self) -> frozenset[ServicePortKey]:
        """The service ports whose clients are not remembered, as there are not enough ipsets."""
        return self._without_affinity

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

    def _replace_frontends(
        self, entry: ServicePort, context: services.Context, *, present: bool
    ) -> None:
        protocol = entry.key.protocol
        for via, frontend in services.frontends(entry):
            nat = services.nat_rules(entry, via, context) if present else None
            unserved = services.filter_rules(entry, via, self._family) if present else ()
            if isinstance(frontend, NodePort):
                self._nat_ports.put(nat, protocol=protocol, port=frontend.port)
                self._filter_ports.put(unserved or None, protocol=protocol, port=frontend.port)
                continue
            where = (frontend.address, protocol, frontend.port)
            self._put_vip(self._nat_vips, where, nat)
            self._put_vip(self._filter_vips, where, unserved or None)

    def _put_vip(
        self,
        dispatch: Dispatch,
        where: tuple[str, Protocol, int],
        rules: tuple[str, ...] | None,
    ) -> None:
        address, protocol, port = where
        dispatch.put(rules, address=address, protocol=protocol, port=port)

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
            wanted = self.localhost or name != "KPROXY-LOCALNET"
            fixed = fingerprint(self._chain(table, name)).encode() if wanted else None
            patch[chain_key(table, name)] = fixed
        for table, base, chain in _JUMPS:
            wanted = self.localhost or chain != "KPROXY-LOCALNET"
            rule = fingerprint((self._jump_rule(table, base, chain),)).encode()
            patch[jump_key(table, base, chain)] = rule if wanted else None

    def _trees(self) -> Iterator[tuple[str, Dispatch]]:
        yield "nat", self._nat_vips
        yield "nat", self._nat_ports
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
        yield from self._nat_ports.root_rules() or (_NEVER,)

    def _known_rules(self) -> NodeRules:
        if self._rules is None:
            raise ValueError("nothing was rendered yet")
        return self._rules

    def _postrouting(self) -> Iterator[str]:
        bit = f"{1 << self._options.masquerade_bit:#x}"
        yield f"-m mark --mark {bit}/{bit} -j KPROXY-MASQUERADE"
        yield (
            "! -o lo -m conntrack --ctstate DNAT "
            f'-m bpf --bytecode "{_RETURN_TO_SENDER[self._family]}" -j KPROXY-MASQUERADE'
        )

    def _masquerade(self) -> Iterator[str]:
        bit = f"{1 << self._options.masquerade_bit:#x}"
        yield f"-j MARK --set-xmark 0x0/{bit}"
        if self.counts and self.localhost:
            # The first packet of a connection that was accepted, as every packet in this table.
            accepted = f"-m conntrack --ctorigdst {node.LOOPBACK[self._family]}"
            yield f"{accepted} {counting(self._family, Account.LOCALHOST)}"
        yield "-j MASQUERADE --random-fully"

    def _filter(self) -> Iterator[str]:
        """Return the order of verdicts.

        The trees are behind jumps and hold nothing but verdicts: while a change is under way, old
        and new rules stand side by side in them, and no rule here may cut those off.
        """
        yield "-m conntrack --ctstate DNAT -j RETURN"
        yield "-j KPROXY-VERDICTS"
        yield "-m addrtype --dst-type LOCAL -g KPROXY-NODEFILTER"
        yield "-j KPROXY-CLUSTERIPS"
        yield from node.unallocated(self._known_rules())

    def _verdicts(self) -> Iterator[str]:
        yield from self._filter_vips.root_rules() or (_NEVER,)

    def _node_filter(self) -> Iterator[str]:
        yield from node.to_node_ports(self._known_rules(), self._family, "KPROXY-NODEVERDICTS")

    def _node_verdicts(self) -> Iterator[str]:
        yield from self._filter_ports.root_rules() or (_NEVER,)

    def _cluster_ip_rules(self) -> Iterator[str]:
        """Return what becomes of a clusterIP that has no such port."""
        yield from self._cluster_ips.root_rules() or (_NEVER,)

    def _refuse(self) -> Iterator[str]:
        yield "-p tcp -j REJECT --reject-with tcp-reset"
        yield f"-j REJECT --reject-with {port_unreachable(self._family)}"

    def _health_rules(self) -> Iterator[str]:
        yield from self._health.root_rules() or (_NEVER,)

    def _forward(self) -> Iterator[str]:
        bit = f"{1 << self._options.masquerade_bit:#x}"
        if self._drop_invalid:
            counted = f"{counting(self._family, Account.INVALID)} " if self.counts else ""
            yield f"-m conntrack --ctstate INVALID {counted}-j DROP"
        yield f"-m mark --mark {bit}/{bit} -j ACCEPT"
        yield "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"

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
    ("nat", "KPROXY-POSTROUTING"): Renderer._postrouting,
    ("nat", "KPROXY-MASQUERADE"): Renderer._masquerade,
    ("filter", "KPROXY-FILTER"): Renderer._filter,
    ("filter", "KPROXY-VERDICTS"): Renderer._verdicts,
    ("filter", "KPROXY-NODEFILTER"): Renderer._node_filter,
    ("filter", "KPROXY-NODEVERDICTS"): Renderer._node_verdicts,
    ("filter", "KPROXY-CLUSTERIPS"): Renderer._cluster_ip_rules,
    ("filter", "KPROXY-REJECT"): Renderer._refuse,
    ("filter", "KPROXY-HEALTH"): Renderer._health_rules,
    ("filter", "KPROXY-FORWARD"): Renderer._forward,
    ("filter", "KPROXY-LOCALNET"): Renderer._localnet,
}
