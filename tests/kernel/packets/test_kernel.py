"""The packet table as real packets, through every data path of this kernel."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.net import plan
from tests.support.net.observed import Answered, Observed, Probe
from tests.support.net.plan import in_family
from tests.support.packets.asking import ASKED, flows_of, listed, table_of, verdict_of
from tests.support.packets.data_paths import DATA_PATHS
from tests.support.packets.groups import balancing
from tests.support.packets.kernel import Kernel
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernels():
    running: dict[str, Kernel] = {}
    yield running
    for kernel in running.values():
        kernel.close()


@pytest.fixture(params=DATA_PATHS)
def kernel(request, kernels):
    if request.param not in kernels:
        kernels[request.param] = Kernel(DATA_PATHS[request.param])
    return kernels[request.param]


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.mark.parametrize(("group", "family"), ASKED)
def test_the_kernel_agrees_with_the_packet_table(kernel, group, family):
    kernel.program(table_of(group, family))
    outcomes = kernel.ask(flows_of(group, family), family)

    mismatches = [
        f"{flow}\n  expected {flow.expected}\n  seen     {outcome}"
        f"\n  resolve: {verdict_of(flow).reason}"
        for flow, outcome in outcomes.items()
        if not kernel.is_right(flow, outcome)
    ]
    assert not mismatches, listed(mismatches)


def probe(source: str, to: str, family: Family, protocol: Protocol = Protocol.TCP) -> Probe:
    address, _, port = to.rpartition(":")
    return Probe(in_family(source, family), in_family(address, family), int(port), protocol)


@pytest.mark.parametrize(
    ("to", "targets"),
    [(balancing.FEW, balancing.FEW_TARGETS), (balancing.MANY, balancing.MANY_TARGETS)],
    ids=["few", "many"],
)
def test_endpoints_get_equal_shares(kernel, family, to, targets):
    kernel.program(table_of(balancing.SPREAD, family))
    share = 120
    count = share * len(targets)
    observed = kernel.send([probe(plan.POD3, to, family)] * count)

    shares = Counter(seen.by if isinstance(seen, Answered) else seen for seen in observed)
    # One of these hundreds of shares is beyond six sigma in every 200,000 runs, beyond eight never.
    eight_sigma = 8 * (share * (1 - 1 / len(targets))) ** 0.5
    assert set(shares) == set(in_family(targets, family))
    assert all(abs(got - share) <= eight_sigma for got in shares.values()), shares


# None shares a namespace with an endpoint: the answer has to come back through the node.
CLIENTS = (
    plan.CLIENT,
    plan.CLIENT2,
    plan.OUTSIDE,
    plan.FAR_CLIENT,
    plan.NODE_POD_SIDE,
    plan.NODE,
    plan.NODE_SECOND,
    plan.POD3,
)


def endpoints_met(kernel: Kernel, to: str) -> list[str | Observed]:
    """Return which endpoint each client meets, over both families."""
    return [
        seen.by if isinstance(seen, Answered) else seen
        for seen in kernel.send(
            [probe(client, to, family) for family in Family for client in CLIENTS]
        )
    ]


def stay_as_they_return(kernel: Kernel) -> bool:
    """Let clients return until more than a term has passed: each meets the same endpoint.

    Say whether they always were in time, which a busy machine may keep them from.
    """
    since = time.monotonic()
    met = endpoints_met(kernel, balancing.STICKY[0])
    for to in balancing.STICKY * 2:
        time.sleep(balancing.AFFINITY_TIMEOUT_S / 5)
        before = time.monotonic()
        meet = endpoints_met(kernel, to)
        if time.monotonic() - since > balancing.AFFINITY_TIMEOUT_S - 1:  # terms are whole seconds
            return False
        assert meet == met
        since = before
    return True


def met_after_a_pause(kernel: Kernel) -> list[str | Observed]:
    """Return whom they meet when their terms have passed."""
    time.sleep(balancing.AFFINITY_TIMEOUT_S + 1)
    return endpoints_met(kernel, balancing.STICKY[0])


def test_affinity_keeps_a_client_at_its_endpoint(kernel):
    """One client, one endpoint, whatever frontend it uses; each connection renews the term."""
    for family in Family:
        kernel.program(table_of(balancing.AFFINITY, family))
    until(
        lambda: stay_as_they_return(kernel), within_s=LONGEST_S, what="clients that return in time"
    )


@pytest.mark.parametrize(
    "kernel", [name for name, each in DATA_PATHS.items() if each.forgets], indirect=True
)
def test_affinity_ends_when_a_client_pauses(kernel):
    """By chance alone all clients choose as before, or all of a family the same.

    Not three times in a row. Only the kernel's clock can make terms pass.
    """
    for family in Family:
        kernel.program(table_of(balancing.AFFINITY, family))
    met = endpoints_met(kernel, balancing.STICKY[0])
    assert any(met_after_a_pause(kernel) != met for _ in range(2))
    assert len(set(met)) > 2 or any(len(set(met_after_a_pause(kernel))) > 2 for _ in range(2))
