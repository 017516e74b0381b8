"""What of the tables is this data path's."""

from __future__ import annotations

from backends.iptables.render.rules import CHAIN_PREFIX, TABLES
from backends.kernel.xtables.ours import Ours
from backends.kube_proxy.chains import is_kube_proxys

OURS = Ours(
    prefix=CHAIN_PREFIX,
    spared=(f"{CHAIN_PREFIX}IPVS-",),
    tables=TABLES,
    kube_proxys=is_kube_proxys,
    # The guard of loopback is in the place of kubelet's, which is no hint: whoever wrote the jump
    # to it, kube-proxy's jumps tell the place better.
    in_the_place_of={
        "KPROXY-SERVICES": ("KUBE-SERVICES",),
        "KPROXY-POSTROUTING": ("KUBE-POSTROUTING",),
        "KPROXY-FORWARD": ("KUBE-FORWARD",),
        "KPROXY-HEALTH": ("KUBE-NODEPORTS", "KUBE-NODE-PORT"),
        "KPROXY-FILTER": (
            *("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"),
            *("KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"),
        ),
    },
)
