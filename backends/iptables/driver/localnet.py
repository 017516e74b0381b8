"""Giving route_localnet back before its guard goes."""

from __future__ import annotations

from backends.kernel import sysctl
from backends.kernel.xtables import rulesets
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import chain_key
from kproxy.core.addresses import Family

GUARD_CHAIN = "KPROXY-LOCALNET"
"""Our chain of the filter table that refuses loopback addresses from outside."""

GUARD = chain_key("filter", GUARD_CHAIN)

_KUBELETS_GUARD = "KUBE-FIREWALL"


def close(family: Family, variant: Variant) -> None:
    """Turn route_localnet off before `variant` loses our guard.

    It stays on where another guard says that somebody relies on it: kubelet's, or our own in the
    other variant.
    """
    if family is not Family.IPV4 or not sysctl.routes_localnet():
        return
    if not any(_guards(family, each, but_ours=each is variant) for each in Variant):
        sysctl.route_localnet("0")


def _guards(family: Family, variant: Variant, *, but_ours: bool) -> bool:
    chains = rulesets.chain_names(family, variant, ("filter",))
    return _KUBELETS_GUARD in chains or (GUARD_CHAIN in chains and not but_ours)
