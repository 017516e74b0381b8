"""A start in another data path, or variant of one: no connection is cut, none is refused."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time

import pytest

from backends.ebpf.driver import loader
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults.flowing import Flowing
from tests.kernel.faults.test_connections import FRONTENDS, SOURCES, web
from tests.support.commands import output_of
from tests.support.ebpf.socket_hooks import Reasons
from tests.support.net.plan import CLIENT, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.conversations import PORT, Conversations
from tests.support.node.node import EBPF, IPTABLES, Node, is_ours
from tests.support.node.proxy import Proxy
from tests.support.node.tools import KILL_AFTER
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

OTHER = {"nft": "legacy", "legacy": "nft"}
PROTOCOLS = (Protocol.TCP, Protocol.UDP)
NEW_ONES = ("KPROXY-SERVICES", "KPROXY-FILTER", "KPROXY-SVC-", "KPROXY-HEALTH")
# From legacy to nf_tables, of each family: filter and nat of the new one, nat and filter of the old
# one; and these again where no open connection needs what is left. The families go side by side, so
# of two restores one is enough.
RESTORES_OF_A_CHANGE = 2 * 4
RESTORES_WITHOUT_CONNECTIONS = 2 * 6
STEP_S = 0.02
ANSWERS = {"10.96.0.30:80": frozenset({POD1})}


@pytest.fixture(params=IPTABLES)
def variant(request):
    return request.param


@pytest.fixture
def flowing(node, ways):
    """Conversations with the only endpoint, under rules of a proxy that has ended."""
    node.manifests.put("web", web(POD1))
    proxy = node.ready()
    with (
        node.place.joined(),
        Flowing(node.network, (POD1, POD2, POD3), ways) as flowing,
    ):
        assert proxy.stop() == 0
        yield flowing


@pytest.fixture
def ways():
    """Each kind of conversation from each source to each frontend."""
    return list(itertools.product(SOURCES, FRONTENDS, PROTOCOLS, Family))


from_outside = pytest.mark.parametrize(
    "ways", [list(itertools.product((CLIENT,), FRONTENDS[1:], PROTOCOLS, Family))], ids=["outside"]
)
from_legacy = pytest.mark.parametrize("variant", ["legacy"], indirect=True)
to_and_fro = pytest.mark.parametrize("variant", ["nft"], indirect=True)  # then the other one


def left(node: Node, variant: str) -> list[str]:
    """Return what the proxy has in a variant: chains, their rules and jumps to them."""
    used, node.data_path = node.data_path, variant
    lines = [line for family in Family for line in node.saved(family) if is_ours(line)]
    node.data_path = used
    return lines


def takes_new_ones(node: Node, variant: str) -> list[str]:
    """Return what in a variant is for new connections."""
    return [line for line in left(node, variant) for name in NEW_ONES if name in line]


def switched(node: Node) -> tuple[Proxy, str]:
    """Start in the other variant; return that process and the name of the old variant."""
    old, node.data_path = node.data_path, OTHER[node.data_path]
    proxy = node.ready()
    for family in Family:
        proxy.wait_for(f"{family.value}: iptables {old} takes no new connections")
    return proxy, old


def forget_connections(node: Node) -> None:
    """Let the kernel forget what it tracks, as it would a while after the last packet."""
    node.run("conntrack -F")


def test_open_ones_go_on_and_new_ones_begin_until_the_old_rules_are_gone(node, flowing):
    proxy, old = switched(node)
    assert flowing.flow(5).silenced == []
    assert flowing.lasting_met == {POD1}
    assert left(node, old)
    assert not takes_new_ones(node, old)

    node.manifests.put("web", web(POD1, POD2))
    until(
        lambda: POD2 in flowing.flow(5).new_met, within_s=LONGEST_S, what="new ones meet new rules"
    )
    flowing.end()
    assert flowing.silenced == []
    assert left(node, old)
    forget_connections(node)
    proxy.wait_for(f"objects of iptables {old}", within_s=LONGEST_S)
    until(lambda: left(node, old) == [], within_s=LONGEST_S, what="the old rules are gone")
    assert node.ours()


@from_outside
def test_what_the_old_table_refuses_by_policy_passes_until_its_rules_go(node, flowing):
    for family in Family:
        node.iptables(family, "-P FORWARD DROP")
    switched(node)
    assert flowing.flow(5).silenced == []


@from_outside
@to_and_fro
def test_what_is_open_outlives_starts_to_and_fro(node, flowing):
    for _ in range(3):
        proxy, _ = switched(node)
        assert flowing.flow(2).silenced == []
        assert proxy.stop() == 0


def test_a_single_apply_lets_the_old_rules_take_no_new_connections(node, flowing):
    old, node.data_path = node.data_path, OTHER[node.data_path]
    node.once()
    assert flowing.flow(2).silenced == []
    assert left(node, old)
    assert not takes_new_ones(node, old)

    flowing.end()
    forget_connections(node)
    node.once()
    assert left(node, old) == []


def test_clean_up_in_between_removes_both(node, flowing):
    proxy, old = switched(node)
    flowing.end()
    assert flowing.silenced == []
    assert proxy.stop() == 0
    assert node.kproxy("cleanup").ended() == 0
    assert left(node, old) == left(node, node.variant) == []


def cut_short(node: Node, call: int) -> None:
    """Apply in the other variant, and be killed after one restore."""
    node.data_path = OTHER[node.data_path]
    node.tools.forget()
    node.tools.at(call, KILL_AFTER)
    assert node.start("--once").ended() == -signal.SIGKILL


def change_back(node: Node) -> None:
    node.data_path = OTHER[node.data_path]
    node.once()


@from_outside
@from_legacy
def test_killed_after_each_step_nobody_is_cut_and_a_start_finishes(node, flowing, variant):
    for call in range(1, RESTORES_OF_A_CHANGE + 1, len(Family)):
        cut_short(node, call)
        assert flowing.flow(1).silenced == [], f"after restore {call}"
        node.once()
        assert flowing.flow(1).silenced == [], f"after restore {call} and another start"
        assert not takes_new_ones(node, variant)
        change_back(node)


@from_legacy
def test_killed_after_each_step_of_the_end_a_start_removes_the_rest(node, variant):
    """Without open connections all of the old rules go at once, and that is cut short."""
    node.manifests.put("web", both("web", "10.96.0.30", POD1))
    node.once()
    for call in range(RESTORES_OF_A_CHANGE + 1, RESTORES_WITHOUT_CONNECTIONS + 1, len(Family)):
        cut_short(node, call)
        assert node.answers(ANSWERS) == [], f"after restore {call}"
        forget_connections(node)
        node.once()
        assert left(node, variant) == [], f"after restore {call} and another start"
        change_back(node)


@from_outside
@to_and_fro
def test_killed_at_any_moment_nobody_is_cut_and_a_start_finishes(node, flowing):
    """From nf_tables rules are removed without a program that a test could stand before."""
    for step in range(6):
        old, node.data_path = node.data_path, OTHER[node.data_path]
        proxy = node.start("--once")
        proxy.wait_for("writing rules with")
        time.sleep(step * STEP_S)
        proxy.kill()
        assert flowing.flow(1).silenced == [], f"{step * STEP_S} s after it was opened"
        node.once()
        assert flowing.flow(1).silenced == []
        assert not takes_new_ones(node, old)


def test_a_set_that_the_old_rules_refer_to_keeps_nobody_waiting(node):
    """An endpoint of a sticky Service went while nobody looked; the other variant names its set."""
    sticky = {"sessionAffinity": "ClientIP"}
    node.manifests.put("web", both("web", "10.96.0.20", POD1, POD3, **sticky))
    node.once()
    node.manifests.put("web", both("web", "10.96.0.20", POD1, POD2, **sticky))
    node.data_path = OTHER[node.data_path]
    node.once()
    assert node.answers({"10.96.0.20:80": frozenset({POD1, POD2})}) == []
    node.once()
    left_over = node.ours()
    node.kproxy("cleanup").ended()
    node.once()
    assert node.ours() == left_over


@pytest.mark.parametrize("variant", ["nft"])
def test_into_ebpf_open_ones_go_on_and_new_ones_begin(node, flowing):
    node.data_path = EBPF
    proxy = node.ready()
    for family in Family:
        proxy.wait_for(f"{family.value}: iptables nft takes no new connections")
    assert flowing.flow(3).lasting_met == flowing.new_met == {POD1}
    node.manifests.put("web", web(POD1, POD2))
    until(
        lambda: POD2 in flowing.flow(3).new_met, within_s=LONGEST_S, what="new ones meet programs"
    )
    assert flowing.silenced == []


def ports_taken(node: Node) -> int:
    """Return how many packets programs dropped that rules masqueraded by the port of an open flow.

    Rules do not know those ports, and choose one of them by chance.
    """
    taken = 0
    for family in Family:
        counts = loader.published_map(node.place.bpffs, family, "reasons")
        assert counts is not None, "the programs serve what is open"
        with counts:
            taken += Reasons(counts)["PORT_TAKEN"]
    return taken


@pytest.mark.parametrize("variant", [EBPF])
def test_out_of_ebpf_open_ones_go_on_and_new_ones_begin(node, flowing):
    node.data_path = "nft"
    proxy = node.ready()
    for family in Family:
        proxy.wait_for(f"{family.value}: ebpf takes no new connections")
    assert flowing.flow(3).lasting_met == {POD1}
    assert POD1 in flowing.new_met
    assert [line for line in flowing.silenced if "goes on" in line] == []
    assert flowing.silenced == [] or len(flowing.silenced) <= ports_taken(node)


@pytest.mark.parametrize("variant", [EBPF])
@pytest.mark.parametrize("into", IPTABLES)
def test_out_of_ebpf_an_endpoint_hears_of_who_says_nothing_more_than_the_end(node, into):
    """Nobody had the kernel track connections before: it meets them with their last segment."""
    node.manifests.put("web", web(POD1))
    with node.place.joined(), contextlib.closing(Conversations(node.network)) as talk:
        talk.serve(POD1)
        before = node.ready()
        ways = itertools.product(SOURCES, FRONTENDS, Family)
        opened = [talk.open(source, to, Protocol.TCP, family) for source, to, family in ways]
        assert {each.partner() for each in opened} == {POD1}
        assert before.stop() == 0
        node.data_path = into
        proxy = node.ready()
        for family in Family:
            proxy.wait_for(f"{family.value}: ebpf takes no new connections")

        for each in opened:
            each.end()
        until(lambda: open_at(node, POD1) == [], within_s=LONGEST_S, what="the endpoint heard")


def open_at(node: Node, pod: str) -> list[str]:
    """Return the connections to a pod of which it has not heard the end."""
    with node.network.machine(pod).entered():
        listed = output_of("ss", "-Htn", "state", "established", timeout_s=LONGEST_S)
    return [line for line in listed.splitlines() if f":{PORT} " in line]
