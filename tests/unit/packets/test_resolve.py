"""The packet table against the reference decision."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.support.net import plan
from tests.support.packets.asking import (
    ALL_FLOWS,
    expectation,
    identify,
    input_interface,
    verdict_of,
)
from tests.support.packets.table import ForwardTo


@pytest.mark.parametrize("flow", ALL_FLOWS, ids=identify)
def test_resolve_agrees_with_the_packet_table(flow):
    verdict = verdict_of(flow)

    assert expectation(verdict) == flow.expected, f"{flow}\n{verdict}"


@pytest.mark.parametrize("flow", ALL_FLOWS, ids=identify)
def test_resolve_gives_a_reason(flow):
    assert verdict_of(flow).reason


@pytest.mark.parametrize(
    "flow", [f for f in ALL_FLOWS if isinstance(f.expected, ForwardTo)], ids=identify
)
def test_a_source_among_the_targets_is_told_as_hairpin(flow):
    verdict = verdict_of(flow)

    assert [t.address for t in verdict.hairpin] == [
        t.address for t in verdict.targets if t.address == flow.source
    ]


def test_the_table_covers_both_families_in_breadth():
    assert min(sum(f.family is family for f in ALL_FLOWS) for family in Family) >= 150


def test_no_packet_is_asked_about_twice():
    asked = [(f.group, f.family, f.source, f.destination, f.port, f.protocol) for f in ALL_FLOWS]
    assert len(asked) == len(set(asked))


def test_both_names_of_a_machine_are_in_the_plan():
    assert all(input_interface(plan.ipv6_of(a)) == input_interface(a) for a in plan.PLACES)
