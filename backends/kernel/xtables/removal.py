"""Removing a data path's jumps and chains from one variant, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from backends.kernel.xtables import rulesets
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.rulesets import Table
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family


@contextmanager
def opened(
    family: Family, variant: Variant, ours: Ours
) -> Iterator[list[tuple[Table, frozenset[str]]]]:
    """Give the tables with chains of ours, in the order of removal, and the names of those.

    Raises BackendError, also while reading.
    """
    with rulesets.opened(family, variant, ours.tables) as tables:
        order = ours.removal or ours.tables[::-1]
        existing = [tables[name] for name in order if name in tables]
        found = [(table, frozenset(filter(ours.has, table.chains))) for table in existing]
        yield [(table, chains) for table, chains in found if chains]


def remove(family: Family, variant: Variant, table: Table, chains: Collection[str]) -> int:
    """Remove chains of ours from a table, and the jumps to them; return how many objects.

    A chain to which something foreign leads stays, empty: that rule is not ours to delete.
    Raises BackendError.
    """
    jumps = [rule for rule in table.base_rules() if rule.step.chain in chains]
    held = rulesets.held(table, chains, jumps)
    gone = set(chains) - held
    rulesets.remove(family, variant, table.name, rules=jumps, chains=gone, emptied=held)
    return len(jumps) + len(gone)


def reduce(family: Family, variant: Variant, ours: Ours, *, kept: Collection[str]) -> bool:
    """Remove our jumps and chains, but for some chains and the jumps to them.

    Returns whether anything of ours is left. Raises BackendError.
    """
    left = False
    with opened(family, variant, ours) as tables:
        for table, chains in tables:
            gone = chains.difference(kept)
            left |= gone != chains
            if gone:
                remove(family, variant, table, gone)
    return left
