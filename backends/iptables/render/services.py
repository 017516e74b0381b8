"""The chains of one service port: policy, affinity and the choice among its endpoints.

Pure. A service port has few chains, because the legacy kernel replaces the whole table at every
change and the nf_tables tool takes time quadratic in chains: endpoints are inline DNAT rules, and
get a chain of their own only where affinity has to be recorded.

- KPROXY-SVC-, KPROXY-SVL-: the choice among all endpoints, among this node's endpoints
- KPROXY-GRP-: a part of a large choice
- KPROXY-SEP-: one endpoint, with affinity
- KPROXY-EXT-: a frontend for the outside under policy Local, where the source decides
- KPROXY-FWL-: a load-balancer frontend that admits some sources only
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backends.iptables.render import trie
from backends.iptables.render.rules import (
    ASK_FOR_MASQUERADE,
    AffinitySet,
    Options,
    chain_name,
    reject,
    set_name,
)
from backends.kernel.xtables.wording import pod_match
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import (
    NodeRules,
    ServicePort,
    ServicePortKey,
    Target,
    Use,
    Via,
    Vip,
)

# A choice of more endpoints becomes a tree over a hash of the endpoint, so that one endpoint more
# or less changes one path of it and not every probability. 64 bits: nobody finds the seventeen
# endpoints of one hash that a leaf could not be split by.
_CHOICE = trie.Shape(nibbles=16, leaf_entries=16, max_levels=3)

Chains = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Context:
    """What all service ports of one family share."""

    family: Family
    rules: NodeRules
    options: Options


def depend_on(old: NodeRules, new: NodeRules) -> bool:
    """Say whether a service port's chains may differ under these rules; most changes spare them."""
    return (old.local_pods, old.masquerade_all) != (new.local_pods, new.masquerade_all)


def chains(entry: ServicePort, context: Context) -> Chains:
    """Return all nat chains of a service port, each with its rules."""
    result: dict[str, tuple[str, ...]] = {}
    uses_all, uses_local = _uses(entry)
    if uses_all:
        result.update(_choice_chains(entry, context, entry.targets, "SVC"))
    if uses_local:
        result.update(_choice_chains(entry, context, entry.local_targets, "SVL"))
    if entry.affinity_timeout_s is not None and (uses_all or uses_local):
        both = dict.fromkeys((*entry.targets * uses_all, *entry.local_targets * uses_local))
        for target in both:
            name = _name(entry.key, "SEP", str(target))
            result[name] = tuple(_endpoint_rules(entry, context, target))
    if _is_external(entry) and entry.external is not Use.REJECT:
        if entry.external_local:
            result[_name(entry.key, "EXT")] = tuple(_external_rules(entry, context))
        if entry.sources is not None and _has(entry, Via.LOAD_BALANCER):
            served = _external_entry(entry, context)
            admitted = (f"-s {n} {rule}" for n in entry.sources for rule in served)
            result[_name(entry.key, "FWL")] = (*admitted, "-j ACCEPT")
    return result


def affinity_sets(entry: ServicePort, family: Family) -> Iterator[AffinitySet]:
    """Return the ipsets that a service port's endpoint chains refer to."""
    if entry.affinity_timeout_s is None:
        return
    uses_all, uses_local = _uses(entry)
    for target in dict.fromkeys((*entry.targets * uses_all, *entry.local_targets * uses_local)):
        yield _affinity_set(entry, family, target)


def nat_rules(entry: ServicePort, via: Via, context: Context) -> tuple[str, ...]:
    """Return what becomes of new connections to one of the entry's frontends.

    What is refused or dropped in filter ends in ACCEPT here: no rule behind ours (a stale one of
    kube-proxy, say) may translate it.
    """
    use = entry.internal if via is Via.CLUSTER_IP else entry.external
    if use is Use.REJECT:
        return ("-j ACCEPT",)
    if via is Via.CLUSTER_IP:
        kinds = {Use.TARGETS: "SVC", Use.LOCAL_TARGETS: "SVL"}
        return (f"-j {_name(entry.key, kinds[use])}",) if use in kinds else ("-j ACCEPT",)
    if via is Via.LOAD_BALANCER and entry.sources is not None:
        return (f"-j {_name(entry.key, 'FWL')}",)
    return _external_entry(entry, context)


def filter_rules(entry: ServicePort, via: Via, context: Context) -> tuple[str, ...]:
    """Return what becomes of new connections to a frontend that nat did not translate."""
    use = entry.internal if via is Via.CLUSTER_IP else entry.external
    refused: tuple[str, ...] = ()
    if use is Use.REJECT:
        refused = (reject(entry.key.protocol, context.family, context.options),)
    if via is Via.LOAD_BALANCER and entry.sources is not None:
        admitted = tuple(f"-s {n} {rule}" for n in entry.sources for rule in refused)
        return (*admitted, "-j DROP")
    return ("-j DROP",) if use is Use.DROP else refused


def _name(key: ServicePortKey, kind: str, *more: str) -> str:
    return chain_name(kind, key.namespace, key.name, key.port, key.protocol.value, *more)


def _has(entry: ServicePort, via: Via) -> bool:
    return any(kind is via for kind, _ in entry.by_kind())


def _is_external(entry: ServicePort) -> bool:
    return any(kind is not Via.CLUSTER_IP for kind, _ in entry.by_kind())


def _uses(entry: ServicePort) -> tuple[bool, bool]:
    """Return whether any frontend leads to all endpoints, and whether any to the local ones."""
    internal = entry.internal if _has(entry, Via.CLUSTER_IP) else None
    external = entry.external if _is_external(entry) else None
    short_circuit = external is not None and entry.external_local and bool(entry.targets)
    uses = (internal, external)
    return Use.TARGETS in uses or short_circuit, Use.LOCAL_TARGETS in uses


def _external_entry(entry: ServicePort, context: Context) -> tuple[str, ...]:
    """Return how a frontend for the outside is served.

    Under policy Cluster that is two rules, not a chain of their own: chains are what costs.
    """
    if entry.external_local:
        return (f"-j {_name(entry.key, 'EXT')}",)
    return ASK_FOR_MASQUERADE, f"-j {_name(entry.key, 'SVC')}"


def _external_rules(entry: ServicePort, context: Context) -> Iterator[str]:
    """Return the rules under policy Local, which binds neither local pods nor the node itself."""
    everything = _name(entry.key, "SVC")
    pod = pod_match(context.rules.local_pods, negated=False)
    if pod is not None:
        yield f"{pod} -j {everything}"
    yield f"-m addrtype --src-type LOCAL {ASK_FOR_MASQUERADE}"
    yield f"-m addrtype --src-type LOCAL -j {everything}"
    local = entry.external is Use.LOCAL_TARGETS
    yield f"-j {_name(entry.key, 'SVL')}" if local else "-j ACCEPT"


def _choice_chains(
    entry: ServicePort, context: Context, targets: Sequence[Target], kind: str
) -> Chains:
    """Return the chain that chooses among `targets`, and the parts of it if they are many."""
    rules: list[str] = []
    serves_cluster_ip = entry.internal is (Use.TARGETS if kind == "SVC" else Use.LOCAL_TARGETS)
    if serves_cluster_ip:
        rules += _cluster_ip_masquerade(entry, context)
    if entry.affinity_timeout_s is not None:
        for target in targets:
            remembered = _affinity_set(entry, context.family, target).name
            endpoint = _name(entry.key, "SEP", str(target))
            rules.append(f"-m set --match-set {remembered} src -j {endpoint}")
    tree = trie.build(_CHOICE, ((_hash(target), target) for target in targets))
    result: dict[str, tuple[str, ...]] = {}
    rules += _choice_rules(entry, tree, kind, result)
    result[_name(entry.key, kind)] = tuple(rules)
    return result


def _choice_rules(
    entry: ServicePort,
    node: trie.Node[Target],
    kind: str,
    result: dict[str, tuple[str, ...]],
) -> list[str]:
    """Return rules that give every target below `node` the same chance; parts go to `result`."""
    choices: list[tuple[int, str]] = []
    if isinstance(node, trie.Leaf):
        choices += [(1, _target_rule(entry, target)) for _, target in node.entries]
    for (prefix, nibbles), child in trie.chains_below(_CHOICE, node):
        if trie.is_inline(child):
            choices += [(1, _target_rule(entry, target)) for _, target in trie.entries(child)]
        else:
            name = _name(entry.key, "GRP", kind, f"{prefix:0{nibbles}x}")
            result[name] = tuple(_choice_rules(entry, child, kind, result))
            choices.append((child.count, f"-j {name}"))
    return list(_weighted(choices))


def _weighted(choices: Sequence[tuple[int, str]]) -> Iterator[str]:
    left = sum(weight for weight, _ in choices)
    for weight, rule in choices:
        if weight < left:
            chance = f"-m statistic --mode random --probability {weight / left:.10f}"
            match, _, target = rule.partition("-j ")
            yield f"{match}{chance} -j {target}"
        else:
            yield rule
        left -= weight


def _hash(target: Target) -> int:
    return int.from_bytes(hashlib.blake2b(str(target).encode(), digest_size=8).digest(), "big")


def _target_rule(entry: ServicePort, target: Target) -> str:
    if entry.affinity_timeout_s is not None:
        return f"-j {_name(entry.key, 'SEP', str(target))}"
    return _translate(entry.key.protocol, target)


def _translate(protocol: Protocol, target: Target) -> str:
    return f"-p {protocol.value.lower()} -j DNAT --to-destination {target}"


def _endpoint_rules(entry: ServicePort, context: Context, target: Target) -> Iterator[str]:
    remembered = _affinity_set(entry, context.family, target)
    yield (f"-j SET --add-set {remembered.name} src --exist --timeout {remembered.timeout_s}")
    yield _translate(entry.key.protocol, target)


def _affinity_set(entry: ServicePort, family: Family, target: Target) -> AffinitySet:
    key = entry.key
    identity = (key.namespace, key.name, key.port, key.protocol.value, str(target))
    return AffinitySet(set_name(family, *identity), family, entry.affinity_timeout_s or 0)


def _cluster_ip_masquerade(entry: ServicePort, context: Context) -> Iterator[str]:
    outsiders = pod_match(context.rules.local_pods, negated=True)
    if context.rules.masquerade_all:
        outsiders = ""
    if outsiders is None:
        return
    for via, frontend in entry.by_kind():
        if via is Via.CLUSTER_IP and isinstance(frontend, Vip):
            # With its port: a NodePort may be asked for at a clusterIP that the node has.
            where = f"-d {frontend.address}/{context.family.bits}"
            what = f"-p {entry.key.protocol.value.lower()} --dport {frontend.port}"
            yield f"{where} {what} {outsiders} {ASK_FOR_MASQUERADE}"
