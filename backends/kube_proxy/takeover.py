"""Removing what kube-proxy leaves behind when it stops, of each of its modes.

Names and layouts: reference 5.1 to 5.3 (k8s.io/kubernetes pkg/proxy, 1.36 and 1.37).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable

from backends.kernel import ipset, nft
from backends.kernel.xtables import rulesets
from backends.kernel.xtables.rulesets import BaseRule, Table
from backends.kernel.xtables.steps import Action
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy import ipvs_leftovers, sets
from backends.kube_proxy.chains import is_kube_proxys
from kproxy.core.addresses import Family

# A jump that kube-proxy made has a comment of its own and no condition but, in some, that the
# connection is new. Anybody else's rule stays and holds what it names.
_COMMENT = re.compile(r"kube(?:rnetes|-proxy) .*")

_NFTABLES_TABLE = "kube-proxy"

FORWARDING = "KUBE-FORWARD"
"""The chain that lets open connections through, whatever the policy of FORWARD."""


class TakeOver:
    """Removes what kube-proxy left, family by family, each when its new rules are in force.

    The families share a link. It goes with the last of them, so that none loses addresses before
    it has rules. Each family may have a thread of its own. Where `ipvs_stays`, virtual servers, the
    link and what lets open connections through are somebody else's care.
    """

    def __init__(self, *, ipvs_stays: bool = False) -> None:
        self._ipvs_stays = ipvs_stays
        self._lock = threading.Lock()
        self._expected: set[Family] = set()
        self._in_force: set[Family] = set()

    def expect(self, family: Family) -> None:
        """Keep what is shared until this family is in force too."""
        with self._lock:
            self._expected.add(family)

    def in_force(self, family: Family) -> int:
        """Remove a family's share, and what all share after the last; return how many objects.

        Raises BackendError; to be called again then.
        """
        if self._ipvs_stays:
            return remove_rules(family, but=(FORWARDING,))
        removed = remove_kube_proxy(family)
        with self._lock:
            self._in_force.add(family)
            if self._expected <= self._in_force:
                removed += ipvs_leftovers.remove_link()
        return removed


def remove_kube_proxy(family: Family) -> int:
    """Remove what kube-proxy made for a family, in any of its modes; return how many objects.

    Only its link stays, without addresses of the family. Raises BackendError.
    """
    removed = ipvs_leftovers.remove_virtual_servers(family)
    removed += ipvs_leftovers.remove_addresses(family)
    return removed + remove_rules(family)


def lets_through(family: Family) -> bool:
    """Say whether the chain for open connections is there. Raises BackendError."""
    return any(FORWARDING in rulesets.chain_names(family, each, ("filter",)) for each in Variant)


def remove_rules(family: Family, but: Collection[str] = ()) -> int:
    """Remove the rules and sets that kube-proxy made for a family; return how many objects.

    Kubelet's chains stay, and so does any chain that something foreign leads to, with whatever
    that chain leads to; chains of kube-proxy's in `but` stay too. Raises BackendError.
    """
    removed = 0
    if nft.has_table(family, _NFTABLES_TABLE):
        nft.delete_table(family, _NFTABLES_TABLE)
        removed += 1
    removed += rulesets.in_both(lambda variant: _remove_chains(family, variant, but))
    return removed + ipset.destroy(sets.existing(family))


def _remove_chains(family: Family, variant: Variant, but: Collection[str]) -> int:
    with rulesets.opened(family, variant) as tables:
        return sum(
            _remove_from(family, variant, table, but) for table in _in_order(tables.values())
        )


def _in_order(tables: Iterable[Table]) -> Iterable[Table]:
    # nat first: what a stale translation still lets in, a stale filter rule may still let through.
    return sorted(tables, key=lambda table: table.name, reverse=True)


def _remove_from(family: Family, variant: Variant, table: Table, but: Collection[str]) -> int:
    known = {chain for chain in table.chains if is_kube_proxys(chain) and chain not in but}
    made = (rule for rule in table.base_rules() if _made_by_kube_proxy(rule))
    jumps = [rule for rule in made if rule.step.chain not in but]
    gone = known - _held(table, known, jumps)
    if not gone and not jumps:
        return 0
    rulesets.remove(family, variant, table.name, rules=jumps, chains=gone)
    return len(gone) + len(jumps)


def _made_by_kube_proxy(rule: BaseRule) -> bool:
    return (
        rule.step.action is Action.JUMP
        and is_kube_proxys(rule.step.chain)
        and not rule.conditional
        and _COMMENT.fullmatch(rule.comment) is not None
    )


def _held(table: Table, known: set[str], jumps: Iterable[BaseRule]) -> set[str]:
    """Return the chains of `known` that must stay, because something that stays leads there."""
    named = rulesets.held(table, known, jumps)
    held: set[str] = set()
    while named:
        chain = named.pop()
        if chain in known and chain not in held:
            held.add(chain)
            named |= {step.chain for step in table.steps(chain)}
    return held
