"""The names of kube-proxy's chains and ipsets, of its iptables and ipvs modes.

Reference 5.1 and 5.2 (k8s.io/kubernetes pkg/proxy, 1.36 and 1.37).
"""

from __future__ import annotations

import re

# Kubelet's chains (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, and KUBE-MARK-DROP of
# older ones) are not among them, and neither are those of policy engines.
_CHAINS = re.compile(
    r"KUBE-(?:(?:SVC|SVL|EXT|FW|SEP|XLB)-[A-Z2-7]{16}"
    r"|SERVICES|EXTERNAL-SERVICES|NODEPORTS|FORWARD|PROXY-FIREWALL|POSTROUTING|MARK-MASQ"
    r"|PROXY-CANARY|LOAD-BALANCER|NODE-PORT|SOURCE-RANGES-FIREWALL|IPVS-FILTER|IPVS-OUT-FILTER)"
)


def is_kube_proxys(chain: str) -> bool:
    """Say whether a chain has a name of kube-proxy's."""
    return _CHAINS.fullmatch(chain) is not None
