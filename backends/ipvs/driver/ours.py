"""What of the tables is this data path's."""

from __future__ import annotations

from backends.ipvs.render.rules import CHAIN_PREFIX, TABLES
from backends.kernel.xtables.ours import Ours
from backends.kube_proxy.chains import is_kube_proxys

OURS = Ours(
    prefix=CHAIN_PREFIX,
    tables=TABLES,
    # What labels new connections goes first: then nobody counts on the rest.
    removal=TABLES,
    kube_proxys=is_kube_proxys,
    # Whoever else translates does so behind what keeps our connections from it.
    in_the_place_of={
        "KPROXY-IPVS-KEEP": ("KUBE-SERVICES", "KPROXY-SERVICES"),
        "KPROXY-IPVS-POSTROUTING": ("KUBE-POSTROUTING", "KPROXY-POSTROUTING"),
        "KPROXY-IPVS-OPEN": ("KUBE-FORWARD", "KPROXY-FORWARD"),
        "KPROXY-IPVS-HEALTH": ("KUBE-NODEPORTS", "KUBE-NODE-PORT", "KPROXY-HEALTH"),
        "KPROXY-IPVS-FILTER": (
            *("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"),
            *("KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER", "KPROXY-FILTER"),
        ),
    },
)

DIVERTING = frozenset({"KPROXY-IPVS-KEEP"})
"""The chains by which nobody else translates a connection of ours any more."""

FOR_OPEN_CONNECTIONS = frozenset(
    {f"{CHAIN_PREFIX}{name}" for name in ("ARRIVING", "FITTING", "POSTROUTING", "OPEN")}
)
"""The chains that open connections need, whoever gets the new ones."""
