"""Which translated UDP flows have outlived what they were translated for.

A TCP connection to a vanished endpoint breaks by itself; a UDP flow keeps its translation for as
long as its client goes on sending. So after a commit the flows that the new table would translate
otherwise are forgotten. Sources: reference 1.4, "stale UDP", and the semantics table of the design.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kproxy.core.addresses import Network, is_loopback
from kproxy.core.objects import Protocol
from kproxy.core.table import NodePort, NodeRules, ServicePort, ServicePortKey, TableChanges

Where = tuple[str, int]  # a canonical address and a port
Place = Where | int  # a frontend as flows show it: a Vip's address and port, or a node port


class Flow(NamedTuple):
    """One UDP entry of the kernel's connection tracking, addresses in canonical text.

    The original direction is what the client sent; `reply_source` and `reply_source_port` are who
    answers. They equal the original destination where no destination was translated. (The kernel's
    IPS_DST_NAT says the same, but not for what ipvs translated.) `handle` is how the data path
    names this very entry, and not a later one of the same tuple; empty where the tuple suffices.
    """

    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int
    reply_destination: str
    reply_destination_port: int
    zone: int
    handle: bytes = b""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where a flow must have been sent to be worth a look: the union of the three.

    Lets a data path skip all other entries, so that millions of foreign flows cost little.
    """

    vips: frozenset[Where] = frozenset()
    ports: frozenset[int] = frozenset()  # at any address
    networks: tuple[Network, ...] = ()  # at any port

    def __bool__(self) -> bool:
        return bool(self.vips or self.ports or self.networks)

    def admit(self, flow: Flow) -> bool:
        """Say whether the flow's original destination is one of these."""
        return (
            flow.destination_port in self.ports
            or (flow.destination, flow.destination_port) in self.vips
            or _is_within(flow.destination, self.networks)
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """A UDP service port as flows see it: where it is reached, and who may answer."""

    places: frozenset[Place]
    answering: frozenset[Where]


_UNKNOWN = _Known(frozenset(), frozenset())


@dataclass(slots=True)
class _Pending:
    """What changed since the last clean-up.

    - `changed`: service ports whose flows must be looked at.
    - `had`: who answered for such a service port then and does not now.
    - `lost`: who answered at a place that its service port gave up.
    - `former`: rules that said otherwise than today's at which addresses NodePorts hold.
    - `unswept`: service networks into which unknown predecessors may have translated flows.
    """

    changed: set[ServicePortKey] = field(default_factory=set)
    had: dict[ServicePortKey, frozenset[Where]] = field(default_factory=dict)
    lost: dict[Place, frozenset[Where]] = field(default_factory=dict)
    former: set[NodeRules] = field(default_factory=set)
    unswept: tuple[Network, ...] = ()


class UdpFlows:
    """Remembers what one family's UDP flows may still be translated to, and tells the stale ones.

    Take in every change of the table with `apply`. Once the kernel holds that table, and if
    `needed`: list the flows to `suspects`, remove those that `stale` picks, then say `settled`.
    Without `settled` (a step failed, or another change came first) nothing is forgotten, and the
    next round covers both.
    """

    def __init__(self) -> None:
        self._rules: NodeRules | None = None
        self._known: dict[ServicePortKey, _Known] = {}
        self._owners: dict[Place, ServicePortKey] = {}
        self._pending = _Pending()

    @property
    def needed(self) -> bool:
        """Say whether any flow can have become stale since the last clean-up."""
        return bool(self._pending.changed or self._pending.lost or self._pending.unswept)

    @property
    def suspects(self) -> Destinations:
        """Return the only destinations whose flows can be stale now."""
        places: set[Place] = set(self._pending.lost)
        for key in self._pending.changed:
            places |= self._known[key].places
        return Destinations(
            vips=frozenset(place for place in places if not isinstance(place, int)),
            ports=frozenset(place for place in places if isinstance(place, int)),
            networks=self._pending.unswept,
        )

    def apply(self, changes: TableChanges) -> None:
        """Take in a change of the table; those of TCP and SCTP are of no interest."""
        if changes.rules is not None:
            self._follow_rules(changes.rules)
        before: dict[ServicePortKey, _Known] = {}
        for key in changes.service_ports:
            if key.protocol is Protocol.UDP:
                before[key] = self._known.pop(key, _UNKNOWN)
                for place in before[key].places:
                    self._owners.pop(place, None)
        for key in before:
            entry = changes.service_ports[key]
            if entry is not None:
                self._known[key] = _Known(_places(entry), _answering(entry))
                self._owners.update(dict.fromkeys(self._known[key].places, key))
        for key, old in before.items():
            self._note(key, old, self._known.get(key, _UNKNOWN))

    def doubt(self) -> None:
        """Count everything as changed: packets may have passed while our rules were missing."""
        self._pending.changed.update(key for key, known in self._known.items() if known.places)
        if self._rules is not None:
            self._pending.unswept = self._rules.service_cidrs

    def stale(self, flows: Iterable[Flow], local_addresses: Collection[str]) -> Iterator[Flow]:
        """Yield those flows that the table would treat otherwise today.

        `local_addresses` are the node's, canonical; loopback addresses need not be among them.
        Lazy, so that a long list never lies in memory: consume it before the next `apply`.

        - To a Vip of a changed service port: who answers is not one of its endpoints. That covers
          flows opened before we translated them, and service ports that have no endpoint left.
        - To a NodePort at a local address where NodePorts hold: it was translated to an endpoint
          that we saw leave, or was not translated at all. One that somebody else translated
          elsewhere is not ours, and a port alone proves nothing.
        - To a place that a service port gave up: it was translated to one of its endpoints.
        - Into a service network that no clean-up has seen: it was translated, by whoever ran
          before us, and no frontend is there, nor anybody else.

        Entries in a connection tracking zone other than 0 belong to whoever made the zone.
        """
        judge = _Judge(
            owners=self._owners,
            known=self._known,
            pending=self._pending,
            held_now=_held([self._rules] if self._rules else [], local_addresses),
            held_before=_held(self._pending.former, local_addresses),
            shared_ranges=tuple(e.network for e in self._rules.shared_ranges)
            if self._rules
            else (),
        )
        return (flow for flow in flows if judge.is_stale(flow))

    def settled(self) -> None:
        """The stale flows are gone: start remembering afresh."""
        self._pending = _Pending()

    def _follow_rules(self, new: NodeRules) -> None:
        old, self._rules = self._rules, new
        swept = set(old.service_cidrs) - set(self._pending.unswept) if old else set()
        self._pending.unswept = tuple(n for n in new.service_cidrs if n not in swept)
        if old is None or _node_port_scope(old) == _node_port_scope(new):
            return
        self._pending.former.add(old)
        self._pending.changed.update(
            key for place, key in self._owners.items() if isinstance(place, int)
        )

    def _note(self, key: ServicePortKey, old: _Known, new: _Known) -> None:
        """Remember what the step from `old` to `new` may have left behind.

        An endpoint that joins others leaves nothing. The first one may: until it came, flows to
        its service port were refused only as far as nobody had opened them before.
        """
        pending = self._pending
        answered = old.answering | pending.had.pop(key, frozenset())
        for place in old.places - new.places if answered else ():
            pending.lost[place] = pending.lost.get(place, frozenset()) | answered
        if not new.places:
            pending.changed.discard(key)
            return
        if answered - new.answering:
            pending.had[key] = answered - new.answering
        first = bool(new.answering) and not old.answering
        if new.places - old.places or old.answering - new.answering or first:
            pending.changed.add(key)


@dataclass(frozen=True, slots=True)
class _Held:
    """Local addresses at which NodePorts hold.

    Never ::1: the kernel does not route a packet from there to anywhere else.
    """

    addresses: frozenset[str]
    loopback: frozenset[Network]

    def __contains__(self, address: str) -> bool:
        if is_loopback(address):
            return address != "::1" and _is_within(address, self.loopback)
        return address in self.addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """What decides over one list of flows."""

    owners: Mapping[Place, ServicePortKey]
    known: Mapping[ServicePortKey, _Known]
    pending: _Pending
    held_now: _Held
    held_before: _Held  # by rules that are no longer in force
    shared_ranges: tuple[Network, ...]

    def is_stale(self, flow: Flow) -> bool:
        """Apply the rules that `UdpFlows.stale` lists."""
        if flow.zone:
            return False
        reached = (flow.destination, flow.destination_port)
        answers = (flow.reply_source, flow.reply_source_port)
        owner = self.owners.get(reached)
        if owner is not None:
            return owner in self.pending.changed and answers not in self.known[owner].answering
        owner = self.owners.get(flow.destination_port)
        if owner is not None and flow.destination in self.held_now:
            return owner in self.pending.changed and self._has_left(owner, reached, answers)
        if answers == reached:
            return False
        if self._was_ours(owner, reached, answers):
            return True
        unswept = _is_within(flow.destination, self.pending.unswept)
        return unswept and not _is_within(flow.destination, self.shared_ranges)

    def _has_left(self, owner: ServicePortKey, reached: Where, answers: Where) -> bool:
        """Judge a flow to a NodePort of today."""
        if answers in self.known[owner].answering:
            return False
        return (
            answers == reached
            or answers in self.pending.had.get(owner, ())
            or answers in self.pending.lost.get(reached[1], ())
        )

    def _was_ours(self, owner: ServicePortKey | None, reached: Where, answers: Where) -> bool:
        """Judge a translated flow to no frontend of today; `owner` has its port elsewhere."""
        if answers in self.pending.lost.get(reached, ()):
            return True
        address, port = reached
        if address in self.held_before and owner is not None:
            has_or_had = self.pending.had.get(owner, frozenset()) | self.known[owner].answering
            if answers in has_or_had:
                return True
        held = address in self.held_now or address in self.held_before
        return held and answers in self.pending.lost.get(port, ())


def _places(entry: ServicePort) -> frozenset[Place]:
    return frozenset(
        frontend.port if isinstance(frontend, NodePort) else (frontend.address, frontend.port)
        for frontend in entry.frontends
    )


def _answering(entry: ServicePort) -> frozenset[Where]:
    """Return whose flows are in order, whatever policy or topology say.

    With publishNotReadyAddresses an endpoint can take connections without being serving. Upstream
    cuts its flows at every change of the Service; the next packet would only go back there.
    """
    used = {(target.address, target.port) for target in (*entry.targets, *entry.local_targets)}
    return entry.serving if used <= entry.serving else entry.serving | used


def _node_port_scope(rules: NodeRules) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    return rules.node_port_addresses, rules.localhost_node_ports


def _held(rules: Collection[NodeRules], local_addresses: Iterable[str]) -> _Held:
    """Return where NodePorts hold by any of `rules`."""
    networks = {network for each in rules for network in each.node_port_addresses}
    return _Held(
        addresses=frozenset(local for local in local_addresses if _is_within(local, networks)),
        loopback=frozenset(n for each in rules for n in each.localhost_node_ports),
    )


def _is_within(address: str, networks: Collection[Network]) -> bool:
    if not networks:
        return False
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)
