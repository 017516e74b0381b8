"""The iptables rules: as many for ten thousand Services as for one. Pure.

ipvs takes a packet behind filter INPUT if somebody else sent it, and before filter OUTPUT if the
node did. So what it must not get is dropped in mangle, which comes before it in both.

mangle
    PREROUTING, OUTPUT -> KPROXY-IPVS-SERVICES, for new connections: who may not use a load
    balancer's address is dropped; then each kind of frontend has a chain. These set labels of the
    connection: that it is ours, that it has to be steered, and that it wants masquerade. Under
    externalTrafficPolicy Local, local pods and the node itself get the packet mark that leads them
    to the virtual server with all endpoints.
    PREROUTING -> KPROXY-IPVS-ARRIVING, which asks that chain: then all packets that a client sends
    in a steered connection get the mark that leads them to our link, and so do errors about what
    it got. What is refused is not steered: from an address that is none of its own the node sends
    no ICMP (__ip_dev_find in icmp_route_lookup, IPv4).
    FORWARD -> KPROXY-IPVS-FITTING: nor does it tell the client of a steered connection that a
    packet is too large for the way to the endpoint; so TCP agrees on what fits.
nat
    PREROUTING, OUTPUT -> KPROXY-IPVS-KEEP: no rule behind ours translates what is ours.
    POSTROUTING -> KPROXY-IPVS-POSTROUTING: masquerade of what was labelled and of hairpins.
filter
    INPUT, FORWARD, OUTPUT -> KPROXY-IPVS-FILTER, for new connections that ipvs did not take: what
    has no endpoint is refused, and whatever else goes to a clusterIP, so that nothing which
    listens on the node answers there. What no Service has in a ServiceCIDR is dropped.
    INPUT -> KPROXY-IPVS-HEALTH: healthCheckNodePorts are let in.
    INPUT, FORWARD -> KPROXY-IPVS-OPEN: all that belongs to connections of ours is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from backends.ipvs.render.marks import OUR_BITS, STEERED
from backends.ipvs.render.sets import SetKind, set_name
from backends.kernel.xtables.wording import (
    chain_key,
    jump_key,
    pod_match,
    port_unreachable,
    to_sender,
    unallocated,
)
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.core.table import NodeRules

CHAIN_PREFIX = "KPROXY-IPVS-"
TABLES = ("mangle", "nat", "filter")

# Labels of a connection (of 128). That of masquerade is the one that iptables mode sets.
_OURS = "-m connlabel --label 106"
_MASQUERADE = "-m connlabel --label 107"
_STEERED = "-m connlabel --label 105"
_BY_IPVS = "-m ipvs --ipvs"
_NEW = "-m conntrack --ctstate NEW "

_JUMPS = {
    ("mangle", "PREROUTING", "KPROXY-IPVS-ARRIVING"): "",
    ("mangle", "FORWARD", "KPROXY-IPVS-FITTING"): "",
    ("mangle", "OUTPUT", "KPROXY-IPVS-SERVICES"): _NEW,
    ("nat", "PREROUTING", "KPROXY-IPVS-KEEP"): "",
    ("nat", "OUTPUT", "KPROXY-IPVS-KEEP"): "",
    ("nat", "POSTROUTING", "KPROXY-IPVS-POSTROUTING"): "",
    ("filter", "INPUT", "KPROXY-IPVS-HEALTH"): _NEW,
    ("filter", "INPUT", "KPROXY-IPVS-FILTER"): _NEW,
    ("filter", "FORWARD", "KPROXY-IPVS-FILTER"): _NEW,
    ("filter", "OUTPUT", "KPROXY-IPVS-FILTER"): _NEW,
    ("filter", "INPUT", "KPROXY-IPVS-OPEN"): "",
    ("filter", "FORWARD", "KPROXY-IPVS-OPEN"): "",
}


def withdrawn() -> Mapping[Key, tuple[str, ...]]:
    """Return the chain that goes on without those to which it leads, for open connections alone."""
    steering = tuple(_steering())
    return {chain_key("mangle", f"{CHAIN_PREFIX}ARRIVING"): steering}


def jumps() -> Mapping[Key, str]:
    """Return our rule for each built-in chain."""
    return {jump_key(*place): f"{match}-j {place[2]}" for place, match in _JUMPS.items()}


def chains(family: Family, rules: NodeRules) -> Mapping[Key, tuple[str, ...]]:
    """Return our chains with their rules, under what holds for the node."""
    words = _Words(family, rules)
    return {
        chain_key(table, f"{CHAIN_PREFIX}{name}"): tuple(chain(words))
        for (table, name), chain in _CHAINS.items()
    }


def _steering() -> Iterator[str]:
    """Yield the rule that leads what clients send in steered connections to our link."""
    unmarked = f"-m mark ! --mark {OUR_BITS:#x}/{OUR_BITS:#x}"
    mark = f"-j MARK --set-xmark {STEERED:#x}/{OUR_BITS:#x}"
    yield f"{_STEERED} -m conntrack --ctdir ORIGINAL {unmarked} {mark}"


class _Words:
    """The chains of one family, one method each."""

    def __init__(self, family: Family, rules: NodeRules) -> None:
        self._family = family
        self._rules = rules

    def arriving(self) -> Iterator[str]:
        yield f"{_NEW}-j KPROXY-IPVS-SERVICES"
        yield from _steering()

    def fitting(self) -> Iterator[str]:
        syn = "-p tcp -m tcp --tcp-flags SYN,RST SYN"
        yield f"{_STEERED} {syn} -j TCPMSS --clamp-mss-to-pmtu"

    def services(self) -> Iterator[str]:
        yield f"{_BY_IPVS} -j RETURN"
        restricted = self._place_in(SetKind.RESTRICTED)
        admitted = set_name(self._family, SetKind.ADMITTED)
        yield f"{restricted} -m set ! --match-set {admitted} dst,dst,src -j DROP"
        yield f"{self._place_in(SetKind.CLUSTER_IP)} {_OURS} --set -g KPROXY-IPVS-CLUSTER-IP"
        yield f"{self._place_in(SetKind.CLUSTER_POLICY)} {_OURS} --set -g KPROXY-IPVS-EXTERNAL"
        yield f"{self._place_in(SetKind.LOCAL_POLICY)} {_OURS} --set -g KPROXY-IPVS-LOCAL"

    def cluster_ip(self) -> Iterator[str]:
        yield f"{self._place_in(SetKind.DROPPED)} -j DROP"
        outsiders = pod_match(self._rules.local_pods, negated=True)
        if self._rules.masquerade_all:
            yield f"{_MASQUERADE} --set -j RETURN"
        elif outsiders is not None:
            yield f"{outsiders} {_MASQUERADE} --set -j RETURN"

    def external(self) -> Iterator[str]:
        refused = set_name(self._family, SetKind.REFUSED)
        yield f"-m set ! --match-set {refused} dst,dst -j KPROXY-IPVS-STEER"
        yield f"{_MASQUERADE} --set -j RETURN"

    def local(self) -> Iterator[str]:
        """Return who is not bound by policy Local, and what others get without local endpoints."""
        yield "-j KPROXY-IPVS-STEER"
        pods = pod_match(self._rules.local_pods, negated=False)
        if pods is not None:
            yield f"{pods} -g KPROXY-IPVS-EVERYWHERE"
        node = "-m addrtype --src-type LOCAL"
        yield f"{node} {_MASQUERADE} --set -g KPROXY-IPVS-EVERYWHERE"
        yield f"{self._place_in(SetKind.DROPPED)} -j DROP"

    def steer(self) -> Iterator[str]:
        yield f"{_STEERED} --set -j RETURN"

    def everywhere(self) -> Iterator[str]:
        """Return the rule that gives a packet the mark of its frontend.

        All bits of it: ipvs compares the whole mark.
        """
        marks = set_name(self._family, SetKind.LOCAL_POLICY)
        yield f"-j SET --map-set {marks} dst,dst --map-mark"

    def keep(self) -> Iterator[str]:
        yield f"{_OURS} -j ACCEPT"

    def postrouting(self) -> Iterator[str]:
        masquerade = "-j MASQUERADE --random-fully"
        yield f"{_BY_IPVS} {_MASQUERADE} {masquerade}"
        yield f"! -o lo {_BY_IPVS} {to_sender(self._family)} {masquerade}"

    def filter(self) -> Iterator[str]:
        yield f"{_BY_IPVS} -j RETURN"
        yield f"{self._place_in(SetKind.REFUSED)} -g KPROXY-IPVS-REFUSE"
        yield f"{_OURS} {_MASQUERADE} -j ACCEPT"
        yield f"{_OURS} -j RETURN"
        yield f"{self._in(SetKind.CLUSTER_ADDRESSES, 'dst')} -g KPROXY-IPVS-REFUSE"
        yield f"{self._in(SetKind.LEAVING_ADDRESSES, 'dst')} -g KPROXY-IPVS-LEAVING"
        # The node's own, while it has to have them for connections of kube-proxy's time.
        here = "-m addrtype --dst-type LOCAL"
        yield f"{here} {self._in(SetKind.STEERED_ADDRESSES, 'dst')} -g KPROXY-IPVS-REFUSE"
        yield f"{here} -j RETURN"
        yield "-j KPROXY-IPVS-UNALLOCATED"
        # Where others use our bit too, what would come to what listens on the node.
        steered = f"-m mark --mark {STEERED:#x}/{STEERED:#x}"
        yield f"{steered} {self._in(SetKind.STEERED_ADDRESSES, 'dst')} -g KPROXY-IPVS-REFUSE"

    def leaving(self) -> Iterator[str]:
        """Return what new connections get at an address that is ours for open ones alone."""
        yield "-j KPROXY-IPVS-UNALLOCATED"
        yield "-g KPROXY-IPVS-REFUSE"

    def unallocated(self) -> Iterator[str]:
        yield from unallocated(self._rules)
        yield "-j RETURN"

    def refuse(self) -> Iterator[str]:
        yield "-p tcp -j REJECT --reject-with tcp-reset"
        yield f"-j REJECT --reject-with {port_unreachable(self._family)}"

    def health(self) -> Iterator[str]:
        yield f"-p tcp {self._in(SetKind.HEALTH, 'dst')} -j ACCEPT"

    def open(self) -> Iterator[str]:
        yield f"{_OURS} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"

    def _place_in(self, kind: SetKind) -> str:
        return self._in(kind, "dst,dst")

    def _in(self, kind: SetKind, what: str) -> str:
        return f"-m set --match-set {set_name(self._family, kind)} {what}"


_CHAINS: Mapping[tuple[str, str], Callable[[_Words], Iterator[str]]] = {
    ("mangle", "ARRIVING"): _Words.arriving,
    ("mangle", "FITTING"): _Words.fitting,
    ("mangle", "SERVICES"): _Words.services,
    ("mangle", "CLUSTER-IP"): _Words.cluster_ip,
    ("mangle", "EXTERNAL"): _Words.external,
    ("mangle", "LOCAL"): _Words.local,
    ("mangle", "STEER"): _Words.steer,
    ("mangle", "EVERYWHERE"): _Words.everywhere,
    ("nat", "KEEP"): _Words.keep,
    ("nat", "POSTROUTING"): _Words.postrouting,
    ("filter", "FILTER"): _Words.filter,
    ("filter", "LEAVING"): _Words.leaving,
    ("filter", "UNALLOCATED"): _Words.unallocated,
    ("filter", "REFUSE"): _Words.refuse,
    ("filter", "HEALTH"): _Words.health,
    ("filter", "OPEN"): _Words.open,
}
