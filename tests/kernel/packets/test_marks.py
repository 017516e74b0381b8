"""Others mark packets as they like: our masquerade bit in their mark means nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.iptables.render.rules import Feature, Options
from backends.kernel.xtables.tools import Variant, program
from kproxy.core.addresses import Family
from tests.support.commands import output_of
from tests.support.net import plan
from tests.support.net.observed import Answered, Observed, Probe, Silent
from tests.support.net.plan import in_family
from tests.support.packets.asking import table_of
from tests.support.packets.data_paths import iptables
from tests.support.packets.groups import node_ports, policies
from tests.support.packets.kernel import Kernel, is_as_expected
from tests.support.packets.table import TCP, families, flows

pytestmark = pytest.mark.kernel

THEIR_MARK = "0xca6c"  # wg-quick's, for the port 51820; it holds bit 14
NODE_PORT = 30120
POLICIES = [(group, family) for group in policies.GROUPS for family in families(group)]
OPEN = node_ports.GROUPS[6].name  # NodePorts hold everywhere


class Marking(Kernel):
    """A node on which somebody marks every packet."""

    def __init__(self, variant: Variant, without: tuple[Feature, ...] = ()) -> None:
        lacking = dict.fromkeys(without, "not on this host")
        super().__init__(iptables(variant, Options(counts=True, without=lacking)))
        self._variant = variant
        for family in Family:
            for chain in ("PREROUTING", "OUTPUT"):
                self.iptables(family, f"-t mangle -A {chain} -j MARK --set-mark {THEIR_MARK}")

    def iptables(self, family: Family, rest: str) -> None:
        with self.network.node.entered():
            output_of(program(family, self._variant), *rest.split(), timeout_s=30)

    def reach(self, source: str, to: str, port: int, family: Family) -> Observed:
        probe = Probe(in_family(source, family), in_family(to, family), port, TCP)
        (observed,) = self.send([probe])
        return observed


@pytest.fixture(scope="module", params=list(Variant), ids=lambda variant: variant.value)
def marking(request) -> Iterator[Marking]:
    kernel = Marking(request.param)
    yield kernel
    kernel.close()


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
def fresh(request) -> Iterator[Marking]:
    kernel = Marking(request.param)
    yield kernel
    kernel.close()


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request) -> Family:
    return request.param


@pytest.mark.parametrize(
    ("group", "family"), POLICIES, ids=[f"{group.name}, {f.value}" for group, f in POLICIES]
)
def test_a_foreign_mark_changes_no_verdict(marking, group, family):
    marking.program(table_of(group.name, family))
    outcomes = marking.ask(flows(group, family), family)

    wrong = [f"{flow}: {seen}" for flow, seen in outcomes.items() if not is_as_expected(flow, seen)]
    assert not wrong


def closed(kernel: Marking, family: Family) -> None:
    """Serve NodePorts on a node that forwards nothing by itself."""
    kernel.program(table_of(OPEN, family))
    kernel.iptables(family, "-P FORWARD DROP")


def test_a_foreign_mark_opens_no_way_through_a_closed_node(fresh, family):
    closed(fresh, family)

    assert fresh.reach(plan.CLIENT, plan.POD1, 8080, family) == Silent(arrived=True)
    through = fresh.reach(plan.CLIENT, plan.NODE, NODE_PORT, family)
    assert isinstance(through, Answered), "ours is let through, there and back"
    assert through.source.rpartition(":")[0].strip("[]") == in_family(plan.NODE_POD_SIDE, family)


def test_the_answers_of_a_connection_that_others_let_in_are_for_them_to_let_out(fresh, family):
    closed(fresh, family)
    client = in_family(plan.CLIENT, family)
    fresh.iptables(family, f"-A FORWARD -s {client} -j ACCEPT")

    assert fresh.reach(plan.CLIENT, plan.POD1, 8080, family) == Silent(arrived=True)
    assert isinstance(fresh.reach(plan.CLIENT, plan.NODE, NODE_PORT, family), Answered)


def translate(kernel: Marking, family: Family) -> None:
    """Translate a port of the node's as a container engine does."""
    node, pod = in_family(plan.NODE, family), in_family(f"{plan.POD1}:8080", family)
    rule = f"-d {node} -p tcp --dport 8099 -j DNAT --to-destination {pod}"
    kernel.iptables(family, f"-t nat -A PREROUTING {rule}")


def test_what_others_translate_is_neither_masqueraded_nor_let_through(fresh, family):
    kernel = fresh
    kernel.program(table_of(OPEN, family))
    translate(kernel, family)

    seen = kernel.reach(plan.CLIENT, plan.NODE, 8099, family)
    assert isinstance(seen, Answered)
    assert seen.source.rpartition(":")[0].strip("[]") == in_family(plan.CLIENT, family)
    kernel.iptables(family, "-P FORWARD DROP")
    assert kernel.reach(plan.CLIENT2, plan.NODE, 8099, family) == Silent(arrived=True)


@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
def test_without_labels_a_foreign_mark_still_opens_nothing_that_was_not_translated(variant, family):
    kernel = Marking(variant, (Feature.LABELS,))
    try:
        closed(kernel, family)
        assert kernel.reach(plan.CLIENT, plan.POD1, 8080, family) == Silent(arrived=True)
        assert isinstance(kernel.reach(plan.CLIENT, plan.NODE, NODE_PORT, family), Answered)
        kernel.iptables(family, "-P FORWARD ACCEPT")
        seen = kernel.reach(plan.CLIENT2, plan.POD1, 8080, family)
        assert isinstance(seen, Answered)
        assert seen.source.rpartition(":")[0].strip("[]") == in_family(plan.CLIENT2, family)
    finally:
        kernel.close()
