"""Connections and flows that exist live on, whatever the proxy goes through."""

from __future__ import annotations

import itertools

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.net.plan import CLIENT, FAR1, NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.conversations import Conversations
from tests.support.node.node import IPTABLES, LEFT
from tests.support.node.web import FRONTENDS, SOURCES, web
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

TRACKED = """table inet theirs {
    chain forward { type filter hook forward priority 5; ct state invalid counter; }
}
"""
CHANGES = 8


@pytest.fixture
def talk(node):
    conversations = Conversations(node.network)
    conversations.serve(POD1, POD2, POD3, FAR1)
    yield conversations
    conversations.close()


@pytest.fixture
def proxy(node):
    node.manifests.put("web", web(POD1))
    return node.ready()


@pytest.fixture
def ongoing(talk, proxy):
    """Conversations of all kinds with the only endpoint, begun."""
    del proxy
    kinds = itertools.product(SOURCES, FRONTENDS, Protocol, Family)
    begun = {
        kind: talk.open(source, to, protocol, family)
        for kind in kinds
        for source, to, protocol, family in [kind]
        if protocol is not Protocol.SCTP
    }
    assert partners(begun) == {POD1}
    return begun


def partners(conversations) -> set[str]:
    return {each.partner() for each in conversations.values()}


def newcomer(talk, family=Family.IPV4) -> str:
    """Return who answers a new connection."""
    return talk.open(CLIENT, FRONTENDS[0], Protocol.TCP, family).partner()


def test_they_survive_kill_and_restart(node, ongoing, proxy):
    proxy.kill()
    assert partners(ongoing) == {POD1}
    again = node.ready()
    assert partners(ongoing) == {POD1}
    assert again.stop() == 0
    assert partners(ongoing) == {POD1}


def test_they_survive_that_endpoints_are_added_and_others_removed(node, talk, ongoing):
    node.manifests.put("web", web(POD1, POD2, FAR1))
    met = set()
    until(
        lambda: met.add(newcomer(talk)) or met == {POD1, POD2, FAR1},
        within_s=LONGEST_S,
        what="new connections meet the new endpoints",
    )
    assert partners(ongoing) == {POD1}
    node.manifests.put("web", web(POD1, FAR1))
    until(
        lambda: {newcomer(talk) for _ in range(20)} == {POD1, FAR1},
        within_s=LONGEST_S,
        what="new connections miss the endpoint that is gone",
    )
    assert partners(ongoing) == {POD1}


def test_a_connection_outlives_its_own_endpoint_and_a_flow_follows(node, talk, ongoing):
    """TCP ends when its pod does; UDP has no end, so a client that goes on is sent elsewhere."""
    node.manifests.put("web", web(POD2))
    until(
        lambda: newcomer(talk) == newcomer(talk, Family.IPV6) == POD2,
        within_s=LONGEST_S,
        what="new connections meet the new endpoint",
    )
    flows = {kind: each for kind, each in ongoing.items() if kind[2] is Protocol.UDP}
    until(lambda: partners(flows) == {POD2}, within_s=LONGEST_S, what="the flows follow")
    assert partners({k: v for k, v in ongoing.items() if k not in flows}) == {POD1}


def test_they_survive_that_the_last_service_goes(node, proxy, ongoing):
    """The rules that remain still need tracking. UDP flows to a Service that is gone are ended."""
    gone = {frontend: frozenset({LEFT}) for frontend in FRONTENDS if NODE not in frontend}
    node.manifests.remove("web")
    until(lambda: node.answers(gone) == [], within_s=LONGEST_S, what="no Service is left")
    assert partners({k: v for k, v in ongoing.items() if k[2] is Protocol.TCP}) == {POD1}
    proxy.kill()
    node.once()
    assert partners({k: v for k, v in ongoing.items() if k[2] is Protocol.TCP}) == {POD1}


@pytest.mark.parametrize("variant", IPTABLES)
def test_they_survive_a_flush_and_its_repair(node, ongoing, proxy):
    """The kernel stops tracking when the last rule that needs it goes, so somebody has another."""
    node.run("nft -f -", text=TRACKED)
    for family in Family:
        node.iptables(family, "-t nat -F")
        node.iptables(family, "-F")
    assert partners(ongoing) == {POD1}
    proxy.wait_for("IPv4: repaired")
    proxy.wait_for("IPv6: repaired")
    assert partners(ongoing) == {POD1}


def test_they_survive_one_change_after_the_other(node, talk, ongoing):
    """Other endpoints and other Services come and go; nobody is cut off or passed on."""
    others = itertools.cycle([(POD2,), (POD3, FAR1), (), (POD2, POD3)])
    for number in range(CHANGES):
        node.manifests.put("web", web(POD1, *next(others)))
        node.manifests.put("other", both("other", f"10.96.0.{100 + number}", POD2))

        def in_force(number=number):
            assert partners(ongoing) == {POD1}, f"after change {number}"
            assert newcomer(talk) in {POD1, POD2, POD3, FAR1}, f"after change {number}"
            return node.answers({f"10.96.0.{100 + number}:80": frozenset({POD2})}) == []

        until(in_force, within_s=LONGEST_S, what=f"change {number} is in force")
    assert partners(ongoing) == {POD1}
