"""The tc programs under many flows, and under those that mean no good."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from backends.ebpf.driver.flow_layout import End, Side, State
from backends.ebpf.driver.flow_map import FlowMap
from backends.ebpf.unit import Unit
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.ebpf.tc.test_expiry import swept
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import LOCAL_PORTS, Tc, everyone, unit
from tests.support.net import plan
from tests.support.net.network import MAC_OF_NODE, MAC_OF_PEER
from tests.support.net.plan import in_family
from tests.support.node.conversations import Conversation

pytestmark = pytest.mark.kernel

VIP, OTHER_VIP = "10.96.0.1", "10.96.0.2"
MASQUERADED = everyone(masquerade=True)
FEW_FLOWS = 600
MANY = 10_000
HALF_THE_SPACE = 1 << 31


def frame(source: End, destination: End, **tcp: object) -> bytes:
    """Return a TCP segment as it comes to the node from a neighbour."""
    wide = len(source.address) == 16
    texts = [
        socket.inet_ntop(socket.AF_INET6 if wide else socket.AF_INET, end.address)
        for end in (source, destination)
    ]
    ip: Packet = (IPv6 if wide else IP)(src=texts[0], dst=texts[1])
    ports = [int.from_bytes(end.port) for end in (source, destination)]
    segment = TCP(sport=ports[0], dport=ports[1], **tcp)
    return bytes(Ether(src=MAC_OF_PEER, dst=MAC_OF_NODE) / ip / segment)


def send(scene: Scene, place: str, frames: list[bytes]) -> None:
    """Send frames to the node from a neighbour's device."""
    with scene.network.namespaces[place].entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        for each in frames:
            raw.send(each)


def entries(tc: Tc) -> dict[Side, tuple]:
    """Return the entries of the only flow, and what was acknowledged at each."""
    layout = FlowMap(tc.maps["flows"]).layout
    found = {}
    for _, value in tc.maps["flows"].items():
        entry = layout.entry(value)
        found[Side(entry.side)] = (entry, int.from_bytes(value[16:20], "little"))
    return found


def resets(tc: Tc, distance: int) -> dict[str, bytes]:
    """Return resets of the only flow, so far from what their receivers expect."""
    sides = entries(tc)
    flow, client_acknowledged = sides[Side.CLIENT]
    _, endpoint_acknowledged = sides[Side.ENDPOINT]
    sequences = {
        "outside": (flow.client, flow.frontend, endpoint_acknowledged),
        "node2": (flow.endpoint, flow.node, client_acknowledged),
    }
    return {
        place: frame(source, to, flags="R", seq=(expected + distance) % (1 << 32))
        for place, (source, to, expected) in sequences.items()
    }


@pytest.mark.parametrize("place", ["outside", "node2"])
def test_a_reset_ends_a_flow_only_if_its_receiver_would_believe_it(
    scene: Scene, family: Family, place: str
):
    tc = scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    opened = scene.open(plan.CLIENT, f"{VIP}:80", Protocol.TCP, family)
    assert opened.partner() == plan.FAR1

    send(scene, place, [resets(tc, HALF_THE_SPACE)[place]])
    assert not entries(tc)[Side.CLIENT][0].state & State.RESET
    assert swept(tc, 1000).expired == 0
    assert opened.partner() == plan.FAR1

    send(scene, place, [resets(tc, 0)[place]])
    assert entries(tc)[Side.CLIENT][0].state & State.RESET
    assert swept(tc, 15).expired == 1


def with_few_flows(whole: Unit) -> Unit:
    """Return programs with a small map of flows."""
    shape = whole.maps["flows"]._replace(max_entries=FEW_FLOWS)
    return msgspec.structs.replace(whole, maps={**whole.maps, "flows": shape})


@pytest.fixture(scope="module")
def narrow_scene(bytecode: Path) -> Iterator[Scene]:
    """A node whose map of flows is small."""

    made = Scene(lambda family: with_few_flows(unit(family, bytecode)))
    yield made
    made.close()


def partner(asked: Conversation) -> str:
    """Return who answers, asked again where the flood filled the queue between two namespaces."""
    answers = (asked.partner(quiet_s=3) for _ in range(3))
    return next((answer for answer in answers if answer != "nobody"), "nobody")


def test_a_flood_of_openings_costs_no_open_flow_and_no_sane_client(
    narrow_scene: Scene, family: Family
):
    scene, tc = narrow_scene, narrow_scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    scene.frontend((OTHER_VIP, 80), ["10.1.1.99"], MASQUERADED)  # nobody is there to answer
    target = End(tc.packed(OTHER_VIP), (80).to_bytes(2))
    subnet = tc.packed(plan.CLIENT2)[:-1]
    flood = [
        frame(End(subnet + bytes([100 + n % 100]), (1024 + n).to_bytes(2)), target, flags="S")
        for n in range(2 * FEW_FLOWS)
    ]
    opened = {
        protocol: scene.open(plan.CLIENT, f"{VIP}:80", protocol, family)
        for protocol in (Protocol.TCP, Protocol.UDP)
    }
    for each in opened.values():
        assert each.partner() == plan.FAR1

    for _ in range(3):
        send(scene, "outside", flood)

        for protocol, each in opened.items():
            assert partner(each) == plan.FAR1
            sane = scene.open(plan.CLIENT2, f"{VIP}:80", protocol, family)
            assert partner(sane) == plan.FAR1
    assert tc.counts().get("FLOWS_FULL", 0) == 0
    assert tc.flow_count() <= FEW_FLOWS + 128  # the kernel counts for each CPU apart


def test_ten_thousand_connections_to_one_endpoint_have_a_port_each(scene: Scene):
    family = Family.IPV4
    tc = scene.tc[family]
    scene.network.namespaces["node2"].sysctl("net/core/somaxconn", MANY)
    scene.listener(plan.FAR1, family, 9004)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9004)

    for _ in range(MANY):
        client = scene.socket(plan.CLIENT, family)
        client.connect((in_family(VIP, family), 80))

    layout = FlowMap(tc.maps["flows"]).layout
    found = [layout.entry(value) for _, value in tc.maps["flows"].items()]
    ports = {int.from_bytes(entry.node.port) for entry in found if entry.side == Side.ENDPOINT}
    assert len(found) == 3 * MANY
    assert len(ports) == MANY
    assert not ports.intersection(LOCAL_PORTS)
