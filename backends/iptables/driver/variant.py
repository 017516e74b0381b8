"""Which variant of iptables the node uses."""

from __future__ import annotations

from collections.abc import Iterable

from backends.iptables.render.rules import CHAIN_PREFIX
from backends.kernel.xtables import rulesets, tools
from backends.kernel.xtables.rulesets import Table
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family

# Kubelet makes these in the variant that it found (KEP-3178).
_KUBELETS_CHAINS = frozenset({"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"})


def choose(family: Family, *, wanted: Variant | None = None) -> Variant:
    """Return the variant to use for a family: `wanted`, if there is one.

    Else it is the variant that holds our chains; else the one where kubelet left its hint; else
    the one with more rules, since others on this node use it; else what the other family's
    rules say; else what `iptables` itself is. Raises BackendError.
    """
    if wanted is not None:
        return wanted
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    return _by_rules(family) or _by_rules(other) or _default(family)


def in_use(family: Family) -> list[Variant]:
    """Return the variants that hold rules of anybody."""
    used = []
    for variant in Variant:
        with rulesets.opened(family, variant) as tables:
            if any(table.rules() for table in tables.values()):
                used.append(variant)
    return used


def _by_rules(family: Family) -> Variant | None:
    with (
        rulesets.opened(family, Variant.LEGACY) as legacy,
        rulesets.opened(family, Variant.NF_TABLES) as nf_tables,
    ):
        found = {Variant.LEGACY: legacy.values(), Variant.NF_TABLES: nf_tables.values()}
        for score in (_our_chains, _kubelets_chains, _rules):
            scores = {variant: score(tables) for variant, tables in found.items()}
            best = max(scores, key=scores.__getitem__)
            if list(scores.values()).count(scores[best]) == 1:
                return best
    return None


def _our_chains(tables: Iterable[Table]) -> int:
    return sum(chain.startswith(CHAIN_PREFIX) for table in tables for chain in table.chains)


def _kubelets_chains(tables: Iterable[Table]) -> int:
    return sum(len(table.chains & _KUBELETS_CHAINS) for table in tables)


def _rules(tables: Iterable[Table]) -> int:
    return sum(table.rules() for table in tables)


def _default(family: Family) -> Variant:
    legacy_only = not tools.installed(tools.program(family, Variant.NF_TABLES, "restore"))
    if legacy_only or tools.default_is_legacy(family):
        return Variant.LEGACY
    return Variant.NF_TABLES
