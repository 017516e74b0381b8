"""What a line of the packet table looks like.

Everything is written once, over IPv4, and holds over IPv6 as well (`tests.support.net.plan`); a
group for one family alone is written in that family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kproxy.core.addresses import Family, Network, canonical_network, endpoint_text
from kproxy.core.objects import Protocol
from kproxy.core.settings import (
    DetectLocalMode,
    LocalhostNodePorts,
    NodePortKeyword,
    Settings,
)
from tests.support.net import plan

NODE_NAME = "node"
TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP


@dataclass(frozen=True, slots=True)
class ForwardTo:
    """One of `targets` ("ip:port") gets the connection.

    `masqueraded`: whichever it is, it sees the node's address. Otherwise it sees the client's, or
    the node's if it is the client itself.
    """

    targets: frozenset[str]
    masqueraded: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client is told at once."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The packet vanishes on the node."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The packet goes on untouched."""


Expected = ForwardTo | Rejected | Dropped | Passed
REJECT = Rejected()
DROP = Dropped()
PASS = Passed()


def forward(*targets: str) -> ForwardTo:
    """Expect one of these endpoints, which sees the client's own address."""
    return ForwardTo(frozenset(targets), masqueraded=False)


def masquerade(*targets: str) -> ForwardTo:
    """Expect one of these endpoints, which sees the node's address."""
    return ForwardTo(frozenset(targets), masqueraded=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One packet: why it is asked about, from where, to where, and what it deserves.

    `family`: the case exists over this family alone; None is both.
    """

    why: str
    source: str
    to: str
    expected: Expected
    protocol: Protocol = TCP
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that share a cluster: its objects, and the settings that differ from the usual.

    `settings` are fields of `Settings`; networks and enumerations by their text. `connected`: the
    networks that the node is said to be directly connected to. `family`: the group is written in
    this family and exists over it alone; None is both.
    """

    name: str
    objects: tuple[Mapping[str, object], ...]
    cases: tuple[Case, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    family: Family | None = None
    connected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """A case over one family, ready to be asked."""

    group: str
    family: Family
    why: str
    source: str
    destination: str
    port: int
    protocol: Protocol
    expected: Expected

    def __str__(self) -> str:
        to = endpoint_text(self.destination, self.port)
        return f"{self.why}: {self.source} -> {to} {self.protocol.value}"


def families(group: Group) -> tuple[Family, ...]:
    """Return the families that a group exists over."""
    return tuple(Family) if group.family is None else (group.family,)


def flows(group: Group, family: Family) -> list[Flow]:
    """Return the cases of a group that exist over a family, with that family's addresses."""
    return [_flow(group, family, case) for case in group.cases if case.family in (None, family)]


def objects(group: Group, family: Family) -> list[Mapping[str, object]]:
    """Return the API objects of a group, with that family's addresses."""
    return [_written(group, family, each) for each in group.objects]


def connected(group: Group, family: Family) -> frozenset[Network]:
    """Return the networks that the node of a group is directly connected to."""
    return frozenset(_networks(_written(group, family, group.connected)))


def settings(group: Group, family: Family) -> Settings:
    """Return the settings of a group; local pods are told by clusterCIDR unless it says else."""
    given = {"cluster_cidrs": (plan.CLUSTER_CIDR,), **group.settings}
    parsed: dict[str, Any] = {
        name: _SETTINGS.get(name, _as_it_is)(_written(group, family, value))
        for name, value in given.items()
    }
    return Settings(node_name=NODE_NAME, **parsed)


def _flow(group: Group, family: Family, case: Case) -> Flow:
    destination, _, port = _written(group, family, case.to).rpartition(":")
    expected = case.expected
    if isinstance(expected, ForwardTo):
        targets = _written(group, family, expected.targets)
        expected = ForwardTo(targets, masqueraded=expected.masqueraded)
    return Flow(
        group=group.name,
        family=family,
        why=case.why,
        source=_written(group, family, case.source),
        destination=destination.strip("[]"),
        port=int(port),
        protocol=case.protocol,
        expected=expected,
    )


def _written(group: Group, family: Family, value: plan.Value) -> plan.Value:
    return value if group.family is not None else plan.in_family(value, family)


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(canonical_network(text) for text in texts)


def _node_port_addresses(texts: tuple[str, ...]) -> tuple[Network | NodePortKeyword, ...]:
    return tuple(
        canonical_network(text) if "/" in text else NodePortKeyword(text) for text in texts
    )


def _as_it_is(value: object) -> object:
    return value


_SETTINGS = {
    "localhost_ipv4": LocalhostNodePorts,
    "detect_local": DetectLocalMode,
    "cluster_cidrs": _networks,
    "node_port_addresses": _node_port_addresses,
}
