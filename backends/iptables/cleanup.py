"""Removing everything of ours, in both variants, and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from backends.iptables.driver import accounting, localnet
from backends.iptables.render.rules import CHAIN_PREFIX, SET_PREFIX, TABLES
from backends.kernel import ipset
from backends.kernel.xtables import rulesets
from backends.kernel.xtables.rulesets import Table
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family


def clean_up(family: Family) -> int:
    """Remove our jumps, chains, ipsets and counters; return how many. Raises BackendError.

    A chain of ours to which something foreign leads stays, empty: that rule is not ours to delete.
    Forwarding stays on: see `backends.kernel.sysctls`.
    """
    removed = rulesets.in_both(lambda variant: clean_up_variant(family, variant))
    removed += ipset.destroy(ipset.observe(SET_PREFIX, family))
    return removed + accounting.remove(family)


def clean_up_variant(family: Family, variant: Variant) -> int:
    """Remove our jumps and chains from one variant; return how many. Raises BackendError."""
    removed = 0
    with rulesets.opened(family, variant, TABLES) as tables:
        # Translation ends first: a packet that it still sends on must be let through.
        for name in ("nat", "filter"):
            ours = _our_chains(tables[name]) if name in tables else set()
            if not ours:
                continue
            if localnet.GUARD_CHAIN in ours:
                localnet.close(family, variant)
            removed += _clean_table(family, variant, tables[name], ours)
    return removed


def reduce_variant(family: Family, variant: Variant, kept: Collection[str]) -> bool:
    """Remove our jumps and chains from one variant, but for some chains and the jumps to them.

    Returns whether anything of ours is left. Raises BackendError.
    """
    left = False
    with rulesets.opened(family, variant, TABLES) as tables:
        for name in ("nat", "filter"):
            ours = _our_chains(tables[name]) if name in tables else set()
            gone = ours.difference(kept)
            left |= gone != ours
            if gone:
                _clean_table(family, variant, tables[name], gone)
    return left


def _our_chains(table: Table) -> set[str]:
    return {chain for chain in table.chains if chain.startswith(CHAIN_PREFIX)}


def _clean_table(family: Family, variant: Variant, table: Table, ours: set[str]) -> int:
    jumps = [rule for rule in table.base_rules() if rule.step.chain in ours]
    held = rulesets.held(table, ours, jumps)
    gone = ours - held
    rulesets.remove(family, variant, table.name, rules=jumps, chains=gone, emptied=held)
    return len(jumps) + len(gone)
