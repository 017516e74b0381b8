"""The packet table against the reference decision."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from kproxy.core.resolve import Forward
from tests.support.net import plan
from tests.support.packets.asking import (
    ALL_FLOWS,
    ASKED,
    expectation,
    flows_of,
    input_interface,
    listed,
    verdict_of,
)
from tests.support.packets.table import ForwardTo


@pytest.mark.parametrize(("group", "family"), ASKED)
def test_resolve_agrees_with_the_packet_table(group, family):
    """It gives a reason each time, and tells a source among the targets as a hairpin."""
    verdicts = {flow: verdict_of(flow) for flow in flows_of(group, family)}

    mismatches = [
        f"{flow}\n  expected {flow.expected}\n  resolve: {verdict}"
        for flow, verdict in verdicts.items()
        if (expectation(verdict), hairpins(verdict), bool(verdict.reason))
        != (flow.expected, expected_hairpins(flow), True)
    ]
    assert not mismatches, listed(mismatches)


def hairpins(verdict):
    return frozenset(map(str, verdict.hairpin)) if isinstance(verdict, Forward) else frozenset()


def expected_hairpins(flow):
    """Return the endpoints that the table expects and that are the client itself."""
    targets = flow.expected.targets if isinstance(flow.expected, ForwardTo) else ()
    return frozenset(t for t in targets if t.rpartition(":")[0].strip("[]") == flow.source)


def test_the_table_covers_both_families_in_breadth():
    assert min(sum(f.family is family for f in ALL_FLOWS) for family in Family) >= 150


def test_no_packet_is_asked_about_twice():
    asked = [(f.group, f.family, f.source, f.destination, f.port, f.protocol) for f in ALL_FLOWS]
    assert len(asked) == len(set(asked))


def test_both_names_of_a_machine_are_in_the_plan():
    assert all(input_interface(plan.ipv6_of(a)) == input_interface(a) for a in plan.PLACES)
