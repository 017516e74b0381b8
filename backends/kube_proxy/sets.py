"""The ipsets of kube-proxy's ipvs mode."""

from __future__ import annotations

from collections.abc import Iterable

from backends.kernel import ipset
from kproxy.core.addresses import Family

_NAMES = (
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
)
_OF_PLACES = ("-EXTERNAL-IP", "-EXTERNAL-IP-LOCAL", "-LOAD-BALANCER")  # hash:ip,port
_PREFIX = {Family.IPV4: "KUBE-", Family.IPV6: "KUBE-6-"}
_LONGEST_NAME = 31


def existing(family: Family) -> list[str]:
    """Return the names of a family's sets that are there. Raises BackendError."""
    prefix = _PREFIX[family]
    known = {f"{prefix}{name}"[:_LONGEST_NAME] for name in _NAMES}
    return sorted(known & set(ipset.names(prefix)))


def of_node_ports(names: Iterable[str]) -> list[str]:
    """Return those of these sets whose members are NodePorts."""
    return [name for name in names if "-NODE-PORT-" in name and "HEALTH" not in name]


def of_places(names: Iterable[str]) -> list[str]:
    """Return those of these sets whose members are a Service's place beyond the cluster."""
    return [name for name in names if name.endswith(_OF_PLACES)]
