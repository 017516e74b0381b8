"""What new connections get at a service port: where they may go, and as whom."""

from __future__ import annotations

import enum
from typing import NamedTuple

from kproxy.core.table import NodeRules, ServicePort, Undetected, Use, Via


class Origin(enum.Enum):
    """Where a connection comes from. A local pod is a pod, whatever else it is."""

    OUTSIDE = "neither a local pod nor the node"
    POD = "a local pod"
    NODE = "the node itself"

    __hash__ = object.__hash__  # an Enum's own is written in Python


class Masquerade(enum.Enum):
    """Whether the endpoint sees the node's address instead of the client's, and why."""

    EVERYTHING = (True, "masqueraded, as masqueradeAll is set")
    UNDETECTED = (False, "not masqueraded, as local pods cannot be told apart")
    POD = (False, "not masqueraded, as the source is a local pod")
    NO_POD = (True, "masqueraded, as the source is no local pod")
    CLUSTER_POLICY = (
        True,
        "masqueraded, as traffic from outside is under externalTrafficPolicy Cluster",
    )
    UNBOUND_POD = (False, "a local pod is not bound by externalTrafficPolicy Local")
    UNBOUND_NODE = (
        True,
        "the node itself is not bound by externalTrafficPolicy Local; masqueraded",
    )
    LOCAL_POLICY = (
        False,
        "externalTrafficPolicy Local keeps to this node's endpoints and the client's address",
    )

    __hash__ = object.__hash__  # an Enum's own is written in Python

    def __init__(self, applies: bool, why: str) -> None:
        self.applies = applies
        self.why = why


class Decision(NamedTuple):
    """What new connections of one origin get.

    With `use` TARGETS or LOCAL_TARGETS that list is not empty. `masquerade` matters to what is
    forwarded alone; an endpoint that chooses itself is masqueraded in any case.
    """

    use: Use
    masquerade: Masquerade


def decide(entry: ServicePort, via: Via, rules: NodeRules, origin: Origin) -> Decision:
    """Return what an origin gets at the frontends of one kind.

    Who is not in `entry.sources` gets nothing at a load balancer's address, whatever this says.
    """
    if via is Via.CLUSTER_IP:
        return Decision(entry.internal, _at_cluster_ip(rules, origin))
    if not entry.external_local:
        return Decision(entry.external, Masquerade.CLUSTER_POLICY)
    if origin is Origin.OUTSIDE:
        return Decision(entry.external, Masquerade.LOCAL_POLICY)
    use = Use.TARGETS if entry.targets else Use.REJECT
    is_pod = origin is Origin.POD
    return Decision(use, Masquerade.UNBOUND_POD if is_pod else Masquerade.UNBOUND_NODE)


def _at_cluster_ip(rules: NodeRules, origin: Origin) -> Masquerade:
    if rules.masquerade_all:
        return Masquerade.EVERYTHING
    if isinstance(rules.local_pods, Undetected):
        return Masquerade.UNDETECTED
    return Masquerade.POD if origin is Origin.POD else Masquerade.NO_POD
