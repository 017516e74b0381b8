"""Puts the packet table's questions: to the compiled table, or to the kernel."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import pytest

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.objects import Kind
from kproxy.core.parse import from_builtins, kind_of
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, Verdict, resolve
from kproxy.core.store import Connected, Replaced
from kproxy.core.table import ForwardingTable
from tests.support.net import plan
from tests.support.packets.groups import GROUPS
from tests.support.packets.objects import endpoint_slice, service
from tests.support.packets.table import (
    DROP,
    PASS,
    REJECT,
    Expected,
    Flow,
    ForwardTo,
    connected,
    families,
    flows,
    objects,
    settings,
)

# A frontend that always answers: what else is silent then is dropped, not lost.
CONTROL = "10.96.0.250:80"
CONTROL_OBJECTS = (service("control", "10.96.0.250"), endpoint_slice("control", plan.POD2))

LOCAL_ADDRESSES = frozenset(plan.NODE_ADDRESSES) | {
    plan.ipv6_of(address) for address in plan.NODE_ADDRESSES
}
ALL_FLOWS = [
    flow for group in GROUPS for family in families(group) for flow in flows(group, family)
]

# A test asks one group over one family: as many tests as there are flows would say no more.
ASKED = [
    pytest.param(group.name, family, id=f"{family.value}, {group.name}")
    for group in GROUPS
    for family in families(group)
]

_GROUP = {group.name: group for group in GROUPS}
_PLACE = {**plan.PLACES, **{plan.ipv6_of(a): place for a, place in plan.PLACES.items()}}


def flows_of(group_name: str, family: Family) -> list[Flow]:
    """Return the flows of a group over a family."""
    return flows(_GROUP[group_name], family)


def listed(mismatches: Iterable[str]) -> str:
    """Return what to tell of the flows that went wrong, all of them."""
    return "\n" + "\n".join(mismatches)


def place_of(address: str) -> str | None:
    """Return the namespace where an address lives, None if nobody has it."""
    return "node" if address.startswith("127.") else _PLACE.get(address)


def input_interface(source: str) -> str | None:
    """Return the interface by which the node sees packets of a machine, None for its own."""
    return plan.INPUT_INTERFACE[_PLACE[source]]


def bridged_interface(source: str) -> str | None:
    """Return the same where all pods of the node are joined by one bridge."""
    return "cbr0" if _PLACE[source] in ("pod1", "pod2", "pod3") else input_interface(source)


@functools.cache
def table_of(group_name: str, family: Family) -> ForwardingTable:
    """Return the compiled cluster of a group; besides its objects it holds the control frontend.

    Nobody may change it.
    """
    group = _GROUP[group_name]
    documents = [*objects(group, family), *plan.in_family(CONTROL_OBJECTS, family)]
    compiler = Compiler(settings(group, family), (family,))
    compiler.apply([Connected(connected(group, family))])
    compiler.apply(
        Replaced(
            kind,
            tuple(
                parsed
                for document in documents
                if kind_of(document) is kind and (parsed := from_builtins(document)) is not None
            ),
        )
        for kind in Kind
    )
    return compiler.tables[family]


def verdict_of(
    flow: Flow, table: ForwardingTable | None = None, interface: str | None = None
) -> Verdict:
    """Return what `resolve()` says of a flow.

    By the table of its group and the interface where it usually comes in, unless others are given.
    """
    if table is None:
        table = table_of(flow.group, flow.family)
    comes_by = interface or input_interface(flow.source)
    packet = Packet(flow.source, flow.destination, flow.port, flow.protocol, comes_by)
    return resolve(table, packet, LOCAL_ADDRESSES)


def expectation(verdict: Verdict) -> Expected:
    """Return a verdict in the packet table's words."""
    match verdict:
        case Forward(targets=targets, masquerade=masquerade):
            return ForwardTo(frozenset(map(str, targets)), masqueraded=masquerade)
        case Reject():
            return REJECT
        case Drop():
            return DROP
        case Pass():
            return PASS
