"""From another data path into mode ipvs and back: no connection is cut, none is refused."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.driver.device_layout import HostFlag
from backends.ebpf.driver.host import HostSettings
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults.flowing import Flowing
from tests.kernel.faults.ipvs.conftest import EVERY_WAY, serve
from tests.support.net.plan import CLIENT, POD1, POD2, POD3
from tests.support.node.conversations import Conversations
from tests.support.node.node import EBPF, IPTABLES, IPVS, Node
from tests.support.node.web import FRONTENDS
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

NAMES = {"nft": "iptables nft", "legacy": "iptables legacy", EBPF: "ebpf", IPVS: "ipvs"}


def changed(node: Node, into: str) -> None:
    """Start in another data path, until the one before takes no new connections."""
    before, node.data_path = node.data_path, into
    proxy = node.ready()
    for family in Family:
        proxy.wait_for(f"{family.value}: {NAMES[before]} takes no new connections")


def expects_nobody(node: Node, family: Family) -> bool:
    """Say whether the programs look for no connections of another data path any more.

    Until they have, they leave it to the kernel's stack to track what new sockets of UDP send.
    """
    settings = loader.published_map(node.place.bpffs, family, "host")
    assert settings is not None
    with settings:
        return HostFlag.HAND_OVER not in HostSettings(settings).read().flags


@pytest.mark.parametrize("variant", ["nft", EBPF])
def test_there_and_back_open_ones_go_on_and_new_ones_begin(node, variant):
    serve(node, POD1)
    agent = node.ready()
    if variant == EBPF:
        until(
            lambda: all(expects_nobody(node, each) for each in Family),
            within_s=LONGEST_S,
            what="the programs serve all that is new",
        )
    with (
        node.place.joined(),
        Flowing(node.network, (POD1, POD2, POD3), EVERY_WAY, connected=False) as flowing,
    ):
        for into in (IPVS, variant):
            assert agent.stop() == 0
            changed(node, into)
            agent = node.started[-1]
            assert flowing.flow(1).silenced == [], f"into {into}"
            assert flowing.lasting_met == {POD1}
            serve(node, POD1, POD2)
            until(
                lambda: POD2 in flowing.flow(1).new_met,
                within_s=LONGEST_S,
                what="new ones meet the new endpoint",
            )
            serve(node, POD1)
        assert flowing.flow(1).lasting_met == {POD1}
        assert flowing.silenced == []


def left(node: Node, data_path: str) -> list[str]:
    """Return what a data path has in the kernel, whichever is used now."""
    used, node.data_path = node.data_path, data_path
    found = node.ours()
    node.data_path = used
    rules = [line for line in found if "KPROXY-" in line]
    if data_path == IPVS:
        rules = [line for line in rules if "KPROXY-IPVS-" in line]
    elif data_path in IPTABLES:
        return [line for line in rules if "KPROXY-IPVS-" not in line]
    else:
        rules = []
    return rules + [line for line in found if "KPROXY-" not in line]


@pytest.mark.parametrize("variant", ["nft", EBPF])
def test_all_of_it_goes_with_the_last_connection(node, variant):
    serve(node, POD1)
    agent = node.ready()
    with contextlib.closing(Conversations(node.network)) as talk:
        talk.serve(POD1)
        for into in (IPVS, variant):
            ways = itertools.product((CLIENT, POD3), FRONTENDS, Family)
            opened = [talk.open(source, to, Protocol.TCP, family) for source, to, family in ways]
            assert {each.partner() for each in opened} == {POD1}
            before = node.data_path
            assert agent.stop() == 0
            changed(node, into)
            agent = node.started[-1]
            assert {each.partner() for each in opened} == {POD1}
            assert left(node, before)
            talk.hang_up()
            agent.wait_for(f"objects of {NAMES[before]}")
            until(
                lambda of=before: left(node, of) == [], within_s=LONGEST_S, what="all of it is gone"
            )
    assert node.ours()
