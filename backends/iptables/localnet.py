"""Giving route_localnet back before its guard goes."""

from __future__ import annotations

from backends.iptables import node, rulesets
from backends.iptables.rules import chain_key
from backends.iptables.tools import Variant
from kproxy.core.addresses import Family

GUARD_CHAIN = "KPROXY-LOCALNET"
"""Our chain of the filter table that refuses loopback addresses from outside."""

GUARD = chain_key("filter", GUARD_CHAIN)

_KUBELETS_GUARD = "KUBE-FIREWALL"


def close(family: Family, variant: Variant) -> None:
    """Turn route_localnet off, unless kubelet guards it too: then kubelet relies on it."""
    if family is not Family.IPV4 or not node.routes_localnet():
        return
    tables = rulesets.read(family, variant)
    if "filter" not in tables or _KUBELETS_GUARD not in tables["filter"].chains:
        node.route_localnet("0")
