"""Whose network policies what ipvs forwards would go around.

Packets that ipvs translates leave by OUTPUT, as the node's own do, and not by FORWARD. Calico's
Felix closes pods to those while there is a link kube-ipvs0, which is kube-proxy's, and knows no
other: without it OUTPUT is open (felix/dataplane/linux/int_dataplane.go, KubeIPVSInterface). With
it Felix's marks of packets would take up the bits of ours. So the two do not go together here.
"""

from __future__ import annotations

from backends.kernel.xtables import rulesets
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

REMEDY = "choose mode iptables, which takes over from kube-proxy's mode ipvs as well"
_CHAIN, _TABLE = "cali-OUTPUT", "calico"


def unenforced(family: Family) -> str:
    """Return whose policies would not hold, and why; "" if nobody's. Raises BackendError."""
    rules = any(
        _CHAIN in rulesets.chain_names(family, variant, ["filter"]) for variant in Variant
    ) or rulesets.chain_names(family, Variant.NF_TABLES, [_TABLE])
    if not rules:
        return ""
    return (
        "Calico is here, and would let through to pods of this node whatever ipvs forwards: its "
        "network policies would not hold"
    )


def require(family: Family) -> None:
    """Raise BackendError if somebody's policies would not hold."""
    reason = unenforced(family)
    if reason:
        raise BackendError("forwarding by ipvs", f"{reason}; {REMEDY}", transient=False)
