"""A rolling update, with the agent there and without it: nobody is refused, nobody is cut off."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.render.layout import packed
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults.flowing import Flowing
from tests.support.ebpf.on_node import inhabited
from tests.support.net.plan import (
    CLIENT,
    FAR1,
    LOOPBACK,
    NODE,
    POD1,
    POD2,
    POD3,
    in_family,
    ipv6_of,
)
from tests.support.node.cluster import both
from tests.support.node.conversations import Conversation, Conversations
from tests.support.node.node import EBPF, Node
from tests.support.node.web import PORTS, SLICE_PORTS
from tests.support.packets.objects import draining, vip
from tests.support.waiting import LONGEST_S, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize("variant", ["nft", EBPF], indirect=True),
]

EXTERNAL, BALANCED = "203.0.113.210", "203.0.113.220"
FRONTENDS = ("10.96.0.20:80", f"{NODE}:30020", f"{EXTERNAL}:80", f"{BALANCED}:80")
SOURCES = (CLIENT, POD3, NODE)
PROTOCOLS = (Protocol.TCP, Protocol.UDP)
WAYS = [
    *itertools.product(SOURCES, FRONTENDS, PROTOCOLS, Family),
    *((LOOPBACK, f"{LOOPBACK}:30020", each, Family.IPV4) for each in PROTOCOLS),
]
NEW_POD = "10.1.0.14"


def web(*endpoints):
    return both(
        "web",
        "10.96.0.20",
        *endpoints,
        ports=PORTS,
        slice_ports=SLICE_PORTS,
        externalIPs=[EXTERNAL, ipv6_of(EXTERNAL)],
        load_balancer=(vip(BALANCED), vip(ipv6_of(BALANCED))),
    )


@pytest.fixture
def flowing(node):
    """Conversations of all kinds with the only endpoint, and new ones, in a cgroup with hooks."""
    node.manifests.put("web", web(POD1))
    node.ready()
    pods = (POD1, POD2, POD3, FAR1)
    with (
        inhabited(node.network.namespaces["pod3"]),
        node.place.joined(),
        Flowing(node.network, pods, WAYS, connected=False) as flowing,
    ):
        until(lambda: known_to_hooks(node, POD3), within_s=LONGEST_S, what="hooks know the pod")
        yield flowing


def known_to_hooks(node: Node, pod: str) -> bool:
    """Say whether hooks know a pod in each family, where there are hooks."""
    for family in Family:
        pods = loader.published_map(node.place.bpffs, family, "pods")
        if pods is not None:
            with pods:
                address = packed(in_family(pod, family))
                if not any(value.startswith(address) for _, value in pods.items()):
                    return False
    return True


def asked(conversation: Conversation) -> str:
    """Return who answers, once."""
    partner = conversation.partner()
    conversation.end()
    return partner


def test_a_rolling_update_under_traffic_fails_nobody(node, flowing):
    for old, new in ((POD1, POD2), (POD2, FAR1), (FAR1, POD1)):
        node.manifests.put("web", web(old, new))
        until(lambda n=new: n in flowing.flow(1).new_met, within_s=LONGEST_S, what="it is served")
        node.manifests.put("web", web(draining(old), new))
        until(lambda n=new: flowing.flow(1).new_met == {n}, within_s=LONGEST_S, what="it drains")
        node.manifests.put("web", web(new))
        # Connections of TCP stay with the first one to their end, and UDP goes on with the new one.
        until(
            lambda n=new: flowing.flow(1).lasting_met == {POD1, n},
            within_s=LONGEST_S,
            what="UDP moves",
        )
    assert flowing.silenced == []


def test_pods_come_and_go_while_the_agent_is_dead(node, flowing):
    (agent,) = node.started
    agent.kill()
    node.manifests.put("web", web(POD2))
    # Programs are at no device that came since, and nothing else sees what goes to the node itself.
    reached = [each for each in FRONTENDS if node.data_path != EBPF or NODE not in each]
    with contextlib.closing(Conversations(node.network)) as talk:

        def met(frontends):
            ways = itertools.product((NEW_POD,), frontends, PROTOCOLS, Family)
            return {way: asked(talk.open(*way)) for way in ways}

        for name in ("pod4", "pod5"):
            node.network.add_pod(name, NEW_POD)
            assert set(met(reached).values()) == {POD1}
            assert flowing.flow(2).new_met == flowing.lasting_met == {POD1}
            if name == "pod4":
                node.network.remove_pod(name)
        node.ready()
        until(lambda: flowing.flow(1).new_met == {POD2}, within_s=LONGEST_S, what="it follows")
        until(
            lambda: set(met(FRONTENDS).values()) == {POD2},
            within_s=LONGEST_S,
            what="the new pod is served",
        )
    assert flowing.silenced == []
