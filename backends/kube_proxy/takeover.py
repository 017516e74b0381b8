"""Removing what kube-proxy leaves behind when it stops, of each of its modes.

Names and layouts: reference 5.1 to 5.3 (k8s.io/kubernetes pkg/proxy, 1.36 and 1.37).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from backends.kernel import ipset, nft
from backends.kernel.xtables import rulesets, tools
from backends.kernel.xtables.rulesets import Table
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy import ipvs_leftovers
from kproxy.core.addresses import Family

_PREFIX = "KUBE-"

# Kubelet's chains (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, and KUBE-MARK-DROP of
# older ones) are not among them, so they stay.
_CHAINS = re.compile(
    r"KUBE-(?:(?:SVC|SVL|EXT|FW|SEP|XLB)-[A-Z2-7]{16}"
    r"|SERVICES|EXTERNAL-SERVICES|NODEPORTS|FORWARD|PROXY-FIREWALL|POSTROUTING|MARK-MASQ"
    r"|PROXY-CANARY|LOAD-BALANCER|NODE-PORT|SOURCE-RANGES-FIREWALL|IPVS-FILTER|IPVS-OUT-FILTER)"
)

# A jump that kube-proxy made: nothing but its target, a comment of its own and, in some, the
# condition that the connection is new. Anybody else's rule stays and holds what it names.
_JUMP = re.compile(
    r"(?:-m conntrack --ctstate NEW )?"
    r'-m comment --comment "kube(?:rnetes|-proxy) [^"]*"'
    r"(?: -m conntrack --ctstate NEW)? -j (KUBE-[A-Z-]+)"
)

_SETS = (
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
)
_SET_PREFIX = {Family.IPV4: "KUBE-", Family.IPV6: "KUBE-6-"}
_SET_NAME_LENGTH = 31

_NFTABLES_TABLE = "kube-proxy"


def remove_kube_proxy(family: Family) -> int:
    """Remove what kube-proxy made in the kernel, in any of its modes; return how many objects.

    Kubelet's chains stay, and so does any chain that a foreign rule names, with whatever that
    chain leads to. Raises BackendError.
    """
    sets = _existing_sets(family)
    node_ports = [name for name in sets if "-NODE-PORT-" in name and "HEALTH" not in name]
    removed = ipvs_leftovers.remove_virtual_servers(family, node_ports)
    removed += ipvs_leftovers.remove_link()
    removed += sum(_remove_chains(family, variant) for variant in Variant)
    removed += ipset.destroy(sets)
    if nft.has_table(family, _NFTABLES_TABLE):
        nft.delete_table(family, _NFTABLES_TABLE)
        removed += 1
    return removed


def _remove_chains(family: Family, variant: Variant) -> int:
    tables = rulesets.read_all_with(_PREFIX, family, variant)
    return sum(_remove_from(family, variant, table) for table in _in_order(tables))


def _in_order(tables: Mapping[str, Table]) -> Iterable[Table]:
    # nat first: what a stale translation still lets in, a stale filter rule may still let through.
    return sorted(tables.values(), key=lambda table: table.name, reverse=True)


def _remove_from(family: Family, variant: Variant, table: Table) -> int:
    known = {chain for chain in table.chains if _CHAINS.fullmatch(chain)}
    jumps = [(base, spec) for base, spec, _ in table.base_rules if _made_by_kube_proxy(spec)]
    gone = known - _held(table, known)
    if not gone and not jumps:
        return 0
    tools.restore(family, variant, rulesets.removal(table.name, jumps=jumps, chains=gone))
    return len(gone) + len(jumps)


def _made_by_kube_proxy(spec: str) -> bool:
    found = _JUMP.fullmatch(spec)
    return found is not None and _CHAINS.fullmatch(found[1]) is not None


def _held(table: Table, known: set[str]) -> set[str]:
    """Return the chains of `known` that must stay, because something that stays leads there."""
    named = {target for _, spec, target in table.base_rules if not _made_by_kube_proxy(spec)}
    for chain, targets in table.jumps.items():
        if chain not in known and chain not in table.built_in:
            named |= targets
    held: set[str] = set()
    while named:
        chain = named.pop()
        if chain in known and chain not in held:
            held.add(chain)
            named |= table.jumps.get(chain, set())
    return held


def _existing_sets(family: Family) -> list[str]:
    prefix = _SET_PREFIX[family]
    ours = {f"{prefix}{name}"[:_SET_NAME_LENGTH] for name in _SETS}
    return sorted(ours & set(ipset.names(prefix)))
