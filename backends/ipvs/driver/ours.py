"""What of the tables is this data path's."""

from __future__ import annotations

from backends.ipvs.render.rules import CHAIN_PREFIX, TABLES
from backends.kernel.xtables.ours import Ours
from backends.kube_proxy.chains import is_kube_proxys

OURS = Ours(
    prefix=CHAIN_PREFIX,
    tables=TABLES,
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
