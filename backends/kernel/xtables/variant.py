"""Which variant of iptables the node uses."""

from __future__ import annotations

from collections.abc import Mapping

from backends.kernel.xtables import rulesets, tools
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family

# Kubelet makes these in the variant that it found (KEP-3178).
_KUBELETS_CHAINS = frozenset({"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"})


def choose(family: Family, ours: Ours, *, wanted: Variant | None = None) -> Variant:
    """Return the variant to use for a family: `wanted`, if there is one.

    Else it is the variant that holds our chains; else the one where kubelet left its hint; else
    the one with more rules, since others on this node use it; else what the other family's
    rules say; else what `iptables` itself is. Raises BackendError.
    """
    if wanted is not None:
        return wanted
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    return _by_rules(family, ours) or _by_rules(other, ours) or _default(family)


def in_use(family: Family) -> list[Variant]:
    """Return the variants that hold rules of anybody."""
    return [variant for variant in Variant if rulesets.count_rules(family, variant)]


def _by_rules(family: Family, ours: Ours) -> Variant | None:
    names = {variant: rulesets.chain_names(family, variant) for variant in Variant}
    for counted in (ours.has, _KUBELETS_CHAINS.__contains__):
        if best := _best({variant: sum(map(counted, names[variant])) for variant in Variant}):
            return best
    return _best({variant: rulesets.count_rules(family, variant) for variant in Variant})


def _best(scores: Mapping[Variant, int]) -> Variant | None:
    """Return the variant with the highest score, if no other has the same."""
    best = max(scores, key=scores.__getitem__)
    return best if list(scores.values()).count(scores[best]) == 1 else None


def _default(family: Family) -> Variant:
    legacy_only = not tools.installed(tools.program(family, Variant.NF_TABLES, "restore"))
    if legacy_only or tools.default_is_legacy(family):
        return Variant.LEGACY
    return Variant.NF_TABLES
