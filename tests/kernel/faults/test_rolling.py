"""A rolling update, with the agent there and without it: nobody is refused, nobody is cut off."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.net.plan import FAR1, NODE, POD1, POD2
from tests.support.node.conversations import Conversation, Conversations
from tests.support.node.node import EBPF, WHERE_IPVS_IS
from tests.support.node.web import EVERY_FRONTEND, web_everywhere
from tests.support.packets.objects import draining
from tests.support.waiting import LONGEST_S, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize("variant", ["nft", EBPF, *WHERE_IPVS_IS], indirect=True),
]

PROTOCOLS = (Protocol.TCP, Protocol.UDP)
NEW_POD = "10.1.0.14"


def asked(conversation: Conversation) -> str:
    """Return who answers, once."""
    partner = conversation.partner()
    conversation.end()
    return partner


def test_a_rolling_update_under_traffic_fails_nobody(node, flowing_everywhere):
    flowing = flowing_everywhere
    for old, new in ((POD1, POD2), (POD2, FAR1), (FAR1, POD1)):
        node.manifests.put("web", web_everywhere(old, new))
        until(lambda n=new: n in flowing.flow(1).new_met, within_s=LONGEST_S, what="it is served")
        node.manifests.put("web", web_everywhere(draining(old), new))
        until(lambda n=new: flowing.flow(1).new_met == {n}, within_s=LONGEST_S, what="it drains")
        node.manifests.put("web", web_everywhere(new))
        # Connections of TCP stay with the first one to their end, and UDP goes on with the new one.
        until(
            lambda n=new: flowing.flow(1).lasting_met == {POD1, n},
            within_s=LONGEST_S,
            what="UDP moves",
        )
    assert flowing.silenced == []


def test_pods_come_and_go_while_the_agent_is_dead(node, flowing_everywhere):
    flowing = flowing_everywhere
    (agent,) = node.started
    agent.kill()
    node.manifests.put("web", web_everywhere(POD2))
    # Programs are at no device that came since, and nothing else sees what goes to the node itself.
    reached = [each for each in EVERY_FRONTEND if node.data_path != EBPF or NODE not in each]
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
            lambda: set(met(EVERY_FRONTEND).values()) == {POD2},
            within_s=LONGEST_S,
            what="the new pod is served",
        )
    assert flowing.silenced == []
