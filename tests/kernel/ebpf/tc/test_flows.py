"""Flows through the tc programs, from their first packet to their last."""

from __future__ import annotations

import itertools
import socket

import pytest

from backends.ebpf.driver.flow_layout import Side
from backends.ebpf.driver.flow_map import FlowMap
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import HAND_OVER, REJECT, WITHDRAWN, everyone
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.net.resets import reset_on_close

pytestmark = pytest.mark.kernel

VIP, OTHER_VIP = "10.96.0.1", "10.96.0.2"
QUIET_S = 0.15
MASQUERADED = everyone(masquerade=True)
TRANSPORTS = [Protocol.TCP, Protocol.UDP]
PORTS = itertools.count(4000)  # of clients, none of them twice: they wait for late segments


def partner(scene: Scene, source: str, to: str, protocol: Protocol, family: Family, **how) -> str:
    """Return who answers the first packet of a new flow."""
    return scene.open(source, to, protocol, family, **how).partner(quiet_s=scene.patience_s)


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_a_client_may_use_its_port_towards_two_frontends_of_one_endpoint(
    scene: Scene, family: Family, client: str
):
    for vip, uses in ((VIP, everyone()), (OTHER_VIP, everyone())):
        scene.frontend((vip, 80), [plan.POD1], uses)

    for protocol in TRANSPORTS:
        port = next(PORTS)
        open_ones = [
            scene.open(client, f"{vip}:80", protocol, family, port=port) for vip in (VIP, OTHER_VIP)
        ]
        for _ in range(2):
            for each in open_ones:
                assert each.partner(quiet_s=scene.patience_s) == plan.POD1


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_two_masqueraded_clients_may_use_the_same_port(scene: Scene, family: Family, client: str):
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    clients = (client, plan.CLIENT2, plan.POD3)

    for protocol in TRANSPORTS:
        port = next(PORTS)
        open_ones = [scene.open(each, f"{VIP}:80", protocol, family, port=port) for each in clients]
        for _ in range(2):
            for each in open_ones:
                assert each.partner(quiet_s=scene.patience_s) == plan.FAR1


def test_a_pod_reaches_itself_from_the_very_port_that_it_serves(scene: Scene, family: Family):
    scene.frontend((VIP, 80), [plan.POD1], port=5353)
    pod = scene.socket(plan.POD1, family, Protocol.UDP, port=5353)

    pod.sendto(b"?", (in_family(VIP, family), 80))
    asked, seen = pod.recvfrom(16)
    pod.sendto(b"!", seen)
    answer, by = pod.recvfrom(16)

    assert asked == b"?"
    assert seen[0] == in_family(plan.NODE_POD_SIDE, family)
    assert (answer, by[:2]) == (b"!", (in_family(VIP, family), 80))


@pytest.mark.parametrize("first_to_close", ["client", "server"])
def test_a_port_is_used_again_at_once_and_meets_another_endpoint(
    scene: Scene, family: Family, first_to_close: str
):
    listeners = {
        address: scene.listener(address, family, 9000) for address in (plan.FAR1, plan.POD1)
    }
    port = next(PORTS)

    for address, listener in listeners.items():
        scene.frontend((VIP, 80), [address], MASQUERADED, port=9000)
        client = scene.socket(plan.CLIENT, family, port=port)
        client.connect((in_family(VIP, family), 80))
        server, _ = listener.accept()
        server.settimeout(10)
        first, second = (client, server) if first_to_close == "client" else (server, client)
        first.close()
        assert second.recv(1) == b""
        if first_to_close == "client":
            reset_on_close(second)
        second.close()
    assert scene.tc[family].flow_count() == 3, "the first flow left something"


def test_a_flow_that_lost_a_part_makes_room_for_the_next(scene: Scene, family: Family):
    tc = scene.tc[family]
    layout = FlowMap(tc.maps["flows"]).layout
    listener = scene.listener(plan.FAR1, family, 9013)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9013)
    port = next(PORTS)
    first = scene.socket(plan.CLIENT, family, port=port)
    first.connect((in_family(VIP, family), 80))
    lost, _ = listener.accept()
    for key, value in list(tc.maps["flows"].items()):
        if layout.entry(value).side == Side.ENDPOINT:
            tc.maps["flows"].delete(key)
    reset_on_close(first)
    with lost, scene.without_programs_on("eth0"):
        first.close()

    again = scene.socket(plan.CLIENT, family, port=port)
    again.connect((in_family(VIP, family), 80))

    listener.accept()[0].close()
    assert tc.flow_count() == 3


def test_what_one_end_closed_goes_on_the_other_way(scene: Scene, family: Family):
    listener = scene.listener(plan.FAR1, family, 9000)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9000)
    client = scene.socket(plan.CLIENT, family)
    client.connect((in_family(VIP, family), 80))
    server, _ = listener.accept()
    server.settimeout(10)

    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    for number in range(3):
        server.sendall(bytes([number]) * 1000)
        with client.makefile("rb") as stream:
            assert stream.read(1000) == bytes([number]) * 1000
    server.close()
    assert client.recv(1) == b""


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_a_frontend_without_endpoints_refuses_at_once(scene: Scene, family: Family, client: str):
    scene.frontend((VIP, 80), [], everyone(use=REJECT))

    for protocol in TRANSPORTS:
        said = partner(scene, client, f"{VIP}:80", protocol, family)
        assert "refused" in said


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_an_endpoint_that_does_not_listen_refuses_as_the_frontend(
    scene: Scene, family: Family, client: str
):
    for uses in (MASQUERADED, everyone()):
        scene.frontend((VIP, 80), [plan.POD1], uses, port=9)

        for protocol in TRANSPORTS:
            assert "refused" in partner(scene, client, f"{VIP}:80", protocol, family)


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_a_segment_of_no_flow_is_reset_unless_it_may_be_another_data_paths(
    scene: Scene, family: Family, client: str
):
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED)
    tc = scene.tc[family]
    opened = [scene.open(client, f"{VIP}:80", Protocol.TCP, family) for _ in range(2)]
    assert [each.partner(quiet_s=scene.patience_s) for each in opened] == [plan.FAR1] * 2
    tc.maps["flows"].delete_many([key for key, _ in tc.maps["flows"].items()])

    tc.settings(flags=HAND_OVER)
    assert opened[0].partner(quiet_s=QUIET_S) == "nobody"
    tc.settings()
    assert "reset" in opened[1].partner(quiet_s=scene.patience_s)
    assert tc.counts()["NO_FLOW"] >= 1


def test_withdrawn_open_flows_are_served_and_new_ones_pass(scene: Scene, family: Family):
    scene.frontend((VIP, 80), [plan.POD1], MASQUERADED)
    tc = scene.tc[family]
    for protocol in TRANSPORTS:
        tc.settings()
        opened = scene.open(plan.CLIENT, f"{VIP}:80", protocol, family)
        assert opened.partner(quiet_s=scene.patience_s) == plan.POD1

        tc.settings(flags=WITHDRAWN)

        assert opened.partner(quiet_s=scene.patience_s) == plan.POD1
        passing = scene.open(plan.CLIENT, f"{VIP}:80", protocol, family)
        assert passing.partner(quiet_s=QUIET_S) == "nobody"
    assert tc.counts()["WITHDRAWN"] >= 2


def test_withdrawn_a_port_that_is_used_again_is_no_flow_of_ours(scene: Scene, family: Family):
    scene.frontend((VIP, 80), [plan.POD1], MASQUERADED, port=9014)
    tc, port = scene.tc[family], next(PORTS)
    listener = scene.listener(plan.POD1, family, 9014)
    first = scene.socket(plan.CLIENT, family, port=port)
    first.connect((in_family(VIP, family), 80))
    server, _ = listener.accept()
    with server:
        reset_on_close(first)
        first.close()
        server.settimeout(scene.patience_s)
        with pytest.raises(ConnectionResetError):
            server.recv(1)

    tc.settings(flags=WITHDRAWN)

    assert partner(scene, plan.CLIENT, f"{VIP}:80", Protocol.TCP, family, port=port) == "nobody"
    assert "WITHDRAWN" in tc.counts()
    assert tc.flow_count() == 0


def test_a_masqueraded_port_is_no_sockets_of_the_host_and_no_node_port(
    scene: Scene, family: Family
):
    scene.frontend(3004, [plan.POD1], MASQUERADED)
    scene.socket(plan.NODE_SECOND, family, Protocol.UDP, port=3003)
    server = scene.socket(plan.FAR1, family, Protocol.UDP, port=9001)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9001)

    seen = {}
    for port in (3003, 3004, 3005, 30005, 40000):
        client = scene.socket(plan.CLIENT, family, Protocol.UDP, port=port)
        client.sendto(b"?", (in_family(VIP, family), 80))
        seen[port] = server.recvfrom(1)[1][1]

    assert seen[3005] == 3005
    assert all(seen[port] != port for port in (3003, 3004, 30005, 40000))
    assert not [port for port in seen.values() if 30000 <= port < 61000]


def test_pods_whose_device_is_not_attached_yet_are_met_where_their_packets_leave(
    scene: Scene, family: Family
):
    scene.frontend((VIP, 80), [plan.FAR1])
    scene.frontend((OTHER_VIP, 80), [plan.POD2], MASQUERADED)
    with scene.without_programs_on("pod1"):
        for protocol, vip in itertools.product(TRANSPORTS, (VIP, OTHER_VIP)):
            answered = partner(scene, plan.POD1, f"{vip}:80", protocol, family)
            assert answered == (plan.FAR1 if vip == VIP else plan.POD2)


def test_a_client_stays_with_its_endpoint_where_the_service_says_so(scene: Scene, family: Family):
    pods = [plan.POD1, plan.POD2, plan.POD3, plan.FAR1, plan.FAR2]
    scene.frontend((VIP, 80), pods, everyone(), affinity_s=100)

    for client, protocol in itertools.product((plan.CLIENT, plan.POD1), TRANSPORTS):
        met = {partner(scene, client, f"{VIP}:80", protocol, family) for _ in range(20)}
        assert len(met) == 1
        assert met < set(pods)


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_a_client_that_resets_may_use_its_port_again(
    scene: Scene, family: Family, client: str, masquerade: bool
):
    port = next(PORTS)
    listeners = {
        address: scene.listener(address, family, 9010) for address in (plan.FAR1, plan.POD1)
    }
    for address, listener in listeners.items():
        scene.frontend((VIP, 80), [address], everyone(masquerade=masquerade), port=9010)
        talker = scene.socket(client, family, port=port)
        talker.connect((in_family(VIP, family), 80))
        server, _ = listener.accept()
        with server:
            server.sendall(b"!")
            assert talker.recv(1) == b"!"
            reset_on_close(talker)
            talker.close()


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2])
def test_a_port_that_was_used_with_a_frontend_may_go_straight_to_the_endpoint(
    scene: Scene, family: Family, client: str
):
    port = next(PORTS)
    listener = scene.listener(plan.FAR1, family, 9011)
    scene.frontend((VIP, 80), [plan.FAR1], everyone(), port=9011)

    for to in ((in_family(VIP, family), 80), (in_family(plan.FAR1, family), 9011)):
        talker = scene.socket(client, family, port=port)
        talker.connect(to)
        server, _ = listener.accept()
        server.close()
        reset_on_close(talker)
        talker.close()


def test_a_client_whose_reset_was_lost_is_not_kept_at_an_endpoint_that_is_gone(
    scene: Scene, family: Family
):
    port = next(PORTS)
    listeners = {
        address: scene.listener(address, family, 9012) for address in (plan.FAR1, plan.POD1)
    }
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=9012)
    talker = scene.socket(plan.CLIENT, family, port=port)
    talker.connect((in_family(VIP, family), 80))
    server, _ = listeners[plan.FAR1].accept()
    reset_on_close(talker)

    with scene.without_programs_on("eth0"):
        talker.close()
    scene.frontend((VIP, 80), [plan.POD1], MASQUERADED, port=9012)
    with server, scene.without_address(plan.FAR1, family):
        talker = scene.socket(plan.CLIENT, family, port=port)
        talker.connect((in_family(VIP, family), 80))
        listeners[plan.POD1].accept()[0].close()


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_the_node_reaches_a_cluster_ip_of_a_network_that_it_is_connected_to(
    scene: Scene, family: Family, protocol: Protocol
):
    near = "192.0.2.77"
    scene.frontend((near, 80), [plan.FAR1], MASQUERADED)
    scene.tc[family].cluster_ip(near)

    assert partner(scene, plan.NODE, f"{near}:80", protocol, family) == plan.FAR1
    assert "refused" in partner(scene, plan.NODE, f"{near}:81", protocol, family)


def test_a_port_that_a_cluster_ip_does_not_have_is_refused(scene: Scene, family: Family):
    scene.frontend((VIP, 80), [plan.FAR1])
    scene.tc[family].cluster_ip(VIP)

    for client, protocol in itertools.product((plan.CLIENT, plan.POD2, plan.NODE), TRANSPORTS):
        assert "refused" in partner(scene, client, f"{VIP}:81", protocol, family)
