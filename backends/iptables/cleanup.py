"""Removing everything of ours, in both variants, and nothing else."""

from __future__ import annotations

from backends.iptables.driver import accounting, localnet
from backends.iptables.driver.ours import OURS
from backends.iptables.render.rules import SET_PREFIX
from backends.kernel import ipset
from backends.kernel.xtables import removal, rulesets
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family


def clean_up(family: Family) -> int:
    """Remove our jumps, chains, ipsets and counters; return how many. Raises BackendError.

    A chain of ours to which something foreign leads stays, empty: that rule is not ours to delete.
    Forwarding stays on: see `backends.kernel.sysctls`.
    """
    removed = rulesets.in_both(lambda variant: clean_up_variant(family, variant))
    removed += ipset.destroy(ipset.observe(SET_PREFIX[family], family))
    return removed + accounting.remove(family)


def clean_up_variant(family: Family, variant: Variant) -> int:
    """Remove our jumps and chains from one variant; return how many. Raises BackendError."""
    removed = 0
    with removal.opened(family, variant, OURS) as tables:
        # Translation ends first: a packet that it still sends on must be let through.
        for table, chains in tables:
            if localnet.GUARD_CHAIN in chains:
                localnet.close(family, variant)
            removed += removal.remove(family, variant, table, chains)
    return removed
