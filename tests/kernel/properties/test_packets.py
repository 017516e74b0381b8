"""Random packets into random clusters: the kernel does what the reference says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from tests.kernel.properties import clusters
from tests.support.effort import examples
from tests.support.net.observed import Answered
from tests.support.packets.data_paths import DATA_PATHS
from tests.support.packets.kernel import Kernel, Outcome
from tests.support.packets.table import Flow, ForwardTo

# A failure is made small for up to 300 s before it is shown.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(420)]


RULES = [name for name in DATA_PATHS if name.startswith("iptables")]
# That the same programs see the same packets by other devices is for the packet table to show.
PROGRAMS = [name for name in DATA_PATHS if name not in RULES and not name.endswith("-bridge")]
FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)


@pytest.fixture(scope="module")
def kernel(request):
    kernel = Kernel(DATA_PATHS[request.param])
    kernel.network.serve(clusters.PORTS)
    yield kernel
    kernel.close()


def is_as_the_reference_says(kernel: Kernel, flow: Flow, outcome: Outcome) -> bool:
    """Compare, knowing that nothing can masquerade what is delivered on the node itself."""
    observed, expected = outcome.observed, flow.expected
    if (
        isinstance(expected, ForwardTo)
        and isinstance(observed, Answered)
        and observed.place == "node"
        and observed.source.startswith((flow.source, f"[{flow.source}]"))
    ):
        return observed.by in expected.targets
    return kernel.is_right(flow, outcome)


def every_packet_gets_what_the_reference_says(kernel: Kernel, tables, data) -> None:
    table = data.draw(tables)
    flows = data.draw(clusters.flows(table))
    kernel.program(table)
    outcomes = kernel.ask(flows, table.family)

    wrong = [
        f"{flow}\n  expected {flow.expected}: {flow.why}\n  seen     {outcomes[flow]}"
        for flow in flows
        if not is_as_the_reference_says(kernel, flow, outcomes[flow])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kernel", RULES, indirect=True)
@FAMILIES
@examples(60)
@given(data=st.data())
def test_every_packet_gets_what_the_reference_says_by_rules(kernel, family, data):
    tables = clusters.tables(family, inhabited=True)
    every_packet_gets_what_the_reference_says(kernel, tables, data)


@pytest.mark.parametrize("kernel", PROGRAMS, indirect=True)
@FAMILIES
@examples(12)  # a process that starts does more than with rules
@given(data=st.data())
def test_every_packet_gets_what_the_reference_says_by_programs(kernel, family, data):
    # Programs do not track what they let pass: in such a network an answer to a machine looks like
    # a packet to nobody.
    tables = clusters.tables(family, inhabited=False)
    every_packet_gets_what_the_reference_says(kernel, tables, data)
