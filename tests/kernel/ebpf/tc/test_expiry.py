"""How flows of the tc programs are listed, forgotten and let go of by the agent."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable

import pytest

from backends.ebpf.driver.flow_layout import TICK_NS, Entry, FlowFlag, Side
from backends.ebpf.driver.flow_map import FlowMap
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.sweep import Sweep
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.flows import Destinations
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import Tc, everyone
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.net.resets import reset_on_close
from tests.support.node.conversations import PORT

pytestmark = pytest.mark.kernel

VIP, NODE_PORT = "10.96.0.1", 30001
MASQUERADED = everyone(masquerade=True)
QUIET_S = 0.15


def swept(tc: Tc, after_s: float, rounds: int = 1) -> Sweep:
    """Let whole rounds pass, so much later than now."""
    later = itertools.count(time.monotonic() + after_s, 0.001)
    sweep = Sweep(tc.maps, clock=lambda: next(later))
    for _ in range(rounds):
        while sweep.tend(10):
            pass
    return sweep


def aged(tc: Tc, by_s: float, which: Callable[[Side], bool]) -> None:
    """Make entries older than they are."""
    flow_map = FlowMap(tc.maps["flows"])
    for key, value in list(tc.maps["flows"].items()):
        entry = flow_map.layout.entry(value)
        if which(Side(entry.side)):
            older = entry._replace(stamp=entry.stamp - int(by_s * 1e9) // TICK_NS)
            tc.maps["flows"].update(key, flow_map.layout.encode(older))


@pytest.mark.parametrize(
    ("masquerade", "client", "entries"),
    [(True, plan.CLIENT, 3), (False, plan.CLIENT, 2), (True, plan.NODE, 2)],
)
def test_a_flow_goes_as_a_whole_after_its_time(
    scene: Scene, family: Family, masquerade: bool, client: str, entries: int
):
    tc = scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], everyone(masquerade=masquerade))
    for protocol, kept_s, gone_s in (
        (Protocol.UDP, 115, 125),
        (Protocol.TCP, 300_000, 500_000),
    ):
        opened = scene.open(client, f"{VIP}:80", protocol, family)
        assert opened.partner() == plan.FAR1
        assert tc.flow_count() == entries

        sweep = swept(tc, kept_s)
        assert (sweep.flows, sweep.expired, tc.flow_count()) == (1, 0, entries)

        sweep = swept(tc, gone_s)
        assert (sweep.flows, sweep.expired, tc.flow_count()) == (0, 1, 0)


def test_what_nobody_answers_goes_sooner(scene: Scene, family: Family):
    tc = scene.tc[family]
    silent = scene.socket(plan.FAR1, family, Protocol.UDP, port=9002)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9002)
    client = scene.socket(plan.CLIENT, family, Protocol.UDP)
    client.sendto(b"?", (in_family(VIP, family), 80))
    assert silent.recv(1) == b"?"

    assert swept(tc, 25).expired == 0
    assert swept(tc, 35).expired == 1
    assert tc.flow_count() == 0


@pytest.mark.parametrize("first_to_close", ["client", "server"])
def test_a_closed_connection_goes_soon(scene: Scene, family: Family, first_to_close: str):
    tc = scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9003)
    listener = scene.listener(plan.FAR1, family, 9003)
    client = scene.socket(plan.CLIENT, family)
    client.connect((in_family(VIP, family), 80))
    server, _ = listener.accept()
    server.settimeout(10)
    first, second = (client, server) if first_to_close == "client" else (server, client)

    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    assert swept(tc, 110).expired == 0  # half of it may go on
    second.close()
    assert first.recv(1) == b""
    first.close()

    assert swept(tc, 110).expired == 0
    assert swept(tc, 130).expired == 1
    assert tc.flow_count() == 0


def test_a_connection_from_the_port_of_one_that_is_just_let_go_lives(
    scene: Scene, family: Family, monkeypatch: pytest.MonkeyPatch
):
    """At the worst moment: its flow was looked at, and is about to be removed."""
    tc, port = scene.tc[family], 40_001
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9004)
    listener = scene.listener(plan.FAR1, family, 9004)
    opened: list[socket.socket] = []

    def open_one() -> None:
        opened.append(scene.socket(plan.CLIENT, family, port=port))
        opened[-1].connect((in_family(VIP, family), 80))

    open_one()
    reset_on_close(opened[0])
    opened[0].close()
    listener.accept()[0].close()
    looks_at = FlowMap.whole

    def looks_too_early(self: FlowMap, entry: Entry, protocol: int) -> dict[bytes, Entry]:
        found = looks_at(self, entry, protocol)
        if len(opened) == 1:
            open_one()
        return found

    monkeypatch.setattr(FlowMap, "whole", looks_too_early)
    sweep = swept(tc, 1_000)
    server, _ = listener.accept()
    with server:
        server.settimeout(10)
        opened[1].sendall(b"?")
        assert server.recv(1) == b"?"
        server.sendall(b"!")
        assert opened[1].recv(1) == b"!"
    assert (len(opened), sweep.expired) == (2, 0)


def test_a_flow_of_which_any_place_sees_packets_stays(scene: Scene, family: Family):
    tc = scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    assert scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family).partner() == plan.FAR1

    for side in Side:
        aged(tc, 1000, lambda each, side=side: each is side)
        sweep = swept(tc, 0)
        left = {Side.CLIENT: 3, Side.STACK: 3, Side.ENDPOINT: 0}[side]
        assert tc.flow_count() == left, sweep


def test_what_is_left_of_a_flow_without_its_client_side_goes(scene: Scene, family: Family):
    tc = scene.tc[family]
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    assert scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family).partner() == plan.FAR1
    flow_map = FlowMap(tc.maps["flows"])
    for key, value in list(tc.maps["flows"].items()):
        if flow_map.layout.entry(value).side == Side.CLIENT:
            tc.maps["flows"].delete(key)

    assert swept(tc, 300).orphans == 0
    assert swept(tc, 700).orphans == 2
    assert tc.flow_count() == 0


def test_an_entry_that_no_program_wrote_goes_and_stops_no_sweep(scene: Scene, family: Family):
    tc = scene.tc[family]
    layout = FlowMap(tc.maps["flows"]).layout
    scene.frontend((VIP, 80), [plan.FAR1])
    assert scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family).partner() == plan.FAR1
    count = tc.flow_count()
    (value,) = (v for _, v in tc.maps["flows"].items() if layout.entry(v).side == Side.CLIENT)
    entry = layout.entry(value)
    tc.maps["flows"].update(layout.key(entry.client, entry.frontend, socket.IPPROTO_GRE), value)

    sweep = swept(tc, 10)
    assert (sweep.orphans, sweep.expired, tc.flow_count()) == (1, 0, count)


def test_a_sweep_ends_soon_after_its_budget(scene: Scene, family: Family):
    tc = scene.tc[family]
    layout = FlowMap(tc.maps["flows"]).layout
    scene.frontend((VIP, 80), [plan.FAR1])
    assert scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family).partner() == plan.FAR1
    (value, *_) = (v for _, v in tc.maps["flows"].items() if layout.entry(v).side == Side.CLIENT)
    entry = layout.entry(value)
    many = {}
    for number in range(20_000):
        client = entry.client._replace(address=number.to_bytes(layout.wide), port=b"\1\1")
        key = layout.key(client, entry.frontend, socket.IPPROTO_UDP)
        many[key] = layout.encode(entry._replace(client=client, flags=FlowFlag.KERNELS))
    tc.maps["flows"].update_many(many)
    now = time.monotonic()
    sweep = Sweep(tc.maps, clock=lambda: now)

    steps = 1
    while sweep.tend(0):
        steps += 1

    assert steps >= 4
    assert sweep.flows == 1
    assert not sweep.tend(0), "the next round is not due yet"


def test_flows_are_told_as_their_clients_see_them(scene: Scene, family: Family):
    flows = Flows(family, scene.tc[family].maps["flows"])
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    scene.frontend(NODE_PORT, [plan.POD1], everyone())
    for to, endpoint in ((f"{VIP}:80", plan.FAR1), (f"{plan.NODE}:{NODE_PORT}", plan.POD1)):
        for protocol in (Protocol.UDP, Protocol.TCP):
            opened = scene.open(plan.CLIENT, to, protocol, family, port=3100)
            assert opened.partner() == endpoint
    vip, node = in_family(VIP, family), in_family(plan.NODE, family)

    listed = {
        name: [(*flow[:6], flow.reply_destination) for flow in flows.flows(wanted)]
        for name, wanted in {
            "vip": Destinations(vips=frozenset({(vip, 80)})),
            "port": Destinations(ports=frozenset({NODE_PORT})),
            "network": Destinations(
                networks=(canonical_network(in_family("10.96.0.0/16", family)),)
            ),
            "other": Destinations(vips=frozenset({(vip, 81)}), ports=frozenset({79})),
        }.items()
    }

    client = in_family(plan.CLIENT, family)
    by_vip = (client, 3100, vip, 80, in_family(plan.FAR1, family), PORT)
    by_port = (client, 3100, node, NODE_PORT, in_family(plan.POD1, family), PORT)
    assert listed == {
        "vip": [(*by_vip, in_family(plan.NODE_SECOND, family))],
        "network": [(*by_vip, in_family(plan.NODE_SECOND, family))],
        "port": [(*by_port, client)],
        "other": [],
    }


def test_a_forgotten_flow_meets_an_endpoint_of_today(scene: Scene, family: Family):
    flows = Flows(family, scene.tc[family].maps["flows"])
    wanted = Destinations(vips=frozenset({(in_family(VIP, family), 80)}))
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    opened = scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family)
    assert opened.partner() == plan.FAR1
    scene.frontend((VIP, 80), [plan.POD1], MASQUERADED)
    assert opened.partner() == plan.FAR1
    listed = list(flows.flows(wanted))

    assert flows.forget_flows(listed) == 1
    assert scene.tc[family].flow_count() == 0
    assert opened.partner() == plan.POD1
    assert flows.forget_flows(listed) == 0, "that is another flow by now"
    assert opened.partner() == plan.POD1
