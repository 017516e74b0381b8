"""Ports on the node that the kernel gives to others while flows of the tc programs have them.

As its MASQUERADE does, which does not know our flows: towards the same endpoint both look the same.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from backends.ebpf.driver.flow_layout import TICK_NS
from backends.ebpf.driver.flow_map import FlowMap
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import everyone
from tests.support.net import plan
from tests.support.net.network import MAC_OF_PEER
from tests.support.net.plan import in_family
from tests.support.net.resets import reset_on_close
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

VIP, PORT = "10.96.0.1", 9000
QUIET_S = 0.15
TOOLS = {Family.IPV4: "iptables-nft", Family.IPV6: "ip6tables-nft"}
MASQUERADED = everyone(masquerade=True)
CLIENTS = pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2])


def by_the_same_port(
    scene: Scene, family: Family, protocol: Protocol, seen: tuple[str, int]
) -> socket.socket:
    """Return a socket of the node that has what an endpoint sees as its client."""
    (address,) = [each for each in plan.NODE_ADDRESSES if in_family(each, family) == seen[0]]
    return scene.socket(address, family, protocol, port=seen[1])


def closed_flow(
    scene: Scene, family: Family, client: str, listener: socket.socket
) -> tuple[str, int]:
    """Open a flow and close it by both ends; return what the endpoint saw as its client."""
    first = scene.socket(client, family)
    first.connect((in_family(VIP, family), 80))
    server, seen = listener.accept()
    with server:
        server.settimeout(scene.patience_s)
        first.close()
        assert server.recv(1) == b""
        reset_on_close(server)
    return seen[0], seen[1]


@CLIENTS
def test_the_port_of_a_closed_flow_belongs_to_who_opens_by_it(
    scene: Scene, family: Family, client: str
):
    listener = scene.listener(plan.FAR1, family, PORT)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=PORT)
    seen = closed_flow(scene, family, client, listener)

    second = by_the_same_port(scene, family, Protocol.TCP, seen)
    second.connect((in_family(plan.FAR1, family), PORT))

    listener.accept()[0].close()
    assert scene.tc[family].flow_count() == 0


def test_the_port_of_a_closed_flow_belongs_to_who_is_masqueraded_by_it(
    scene: Scene, family: Family
):
    """Who goes straight to the endpoint, and is none of ours where it comes in."""
    listener = scene.listener(plan.FAR1, family, PORT)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=PORT)
    seen = closed_flow(scene, family, plan.CLIENT, listener)

    with masquerading_by(scene, family, plan.POD1, seen[1]):
        second = scene.socket(plan.POD1, family)
        second.connect((in_family(plan.FAR1, family), PORT))
        accepted, then = listener.accept()
        accepted.close()
    assert then[:2] == seen


@contextlib.contextmanager
def masquerading_by(scene: Scene, family: Family, pod: str, port: int) -> Iterator[None]:
    """Run the body while the node masquerades what a pod opens, by this port."""
    rule = ["POSTROUTING", "-p", "tcp", "-s", in_family(pod, family), "-j", "MASQUERADE"]
    command = [TOOLS[family], "-w", "5", "-t", "nat"]
    with scene.network.node.entered():
        output_of(*command, "-A", *rule, "--to-ports", str(port), timeout_s=LONGEST_S)
    try:
        yield
    finally:
        with scene.network.node.entered():
            output_of(*command, "-D", *rule, "--to-ports", str(port), timeout_s=LONGEST_S)


@CLIENTS
def test_an_open_flow_is_not_cut_by_who_opens_by_its_port(
    scene: Scene, family: Family, client: str
):
    listener = scene.listener(plan.FAR1, family, PORT)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=PORT)
    first = scene.socket(client, family)
    first.connect((in_family(VIP, family), 80))
    server, seen = listener.accept()
    with server:
        server.settimeout(scene.patience_s)
        server.sendall(b"1")
        assert first.recv(1) == b"1"

        second = by_the_same_port(scene, family, Protocol.TCP, seen)
        second.setblocking(False)
        second.connect_ex((in_family(plan.FAR1, family), PORT))

        first.sendall(b"2")
        assert server.recv(1) == b"2"
        server.sendall(b"3")
        assert first.recv(1) == b"3"


@CLIENTS
def test_the_port_of_a_silent_client_belongs_to_who_sends_by_it(
    scene: Scene, family: Family, client: str
):
    server = scene.socket(plan.FAR1, family, Protocol.UDP, port=PORT)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=PORT)
    first = scene.socket(client, family, Protocol.UDP)
    first.sendto(b"1", (in_family(VIP, family), 80))
    _, seen = server.recvfrom(1)
    second = by_the_same_port(scene, family, Protocol.UDP, seen[:2])
    second.settimeout(QUIET_S)

    def is_answered() -> bool:
        second.sendto(b"2", (in_family(plan.FAR1, family), PORT))
        server.sendto(*server.recvfrom(1))
        with contextlib.suppress(TimeoutError):
            return second.recv(1) == b"2"
        return False

    until(is_answered, within_s=scene.patience_s, what="answers reach whom they are for")
    assert scene.tc[family].flow_count() == 0


@contextlib.contextmanager
def unresolved(scene: Scene) -> Iterator[None]:
    """Run the body while what the node sends to the other node waits for its link address."""
    scene.network.node.sysctl("net/ipv4/neigh/eth1/mcast_solicit", 1000)
    scene.network.namespaces["node2"].sysctl("net/ipv4/conf/eth0/arp_ignore", 8)
    with scene.network.node.entered(), IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname="eth1")
        netlink.neigh("del", ifindex=index, dst=plan.NODE2)
        try:
            yield
        finally:
            netlink.neigh(
                "replace", ifindex=index, dst=plan.NODE2, lladdr=MAC_OF_PEER, state="permanent"
            )
            scene.network.namespaces["node2"].sysctl("net/ipv4/conf/eth0/arp_ignore", 0)


def test_what_waits_on_its_way_out_is_not_taken_for_somebody_elses(scene: Scene):
    tc = scene.tc[Family.IPV4]
    flow_map = FlowMap(tc.maps["flows"])
    server = scene.socket(plan.FAR1, Family.IPV4, Protocol.UDP, port=PORT)
    scene.frontend((VIP, 80), [plan.FAR1], MASQUERADED, port=PORT)
    client = scene.socket(plan.NODE, Family.IPV4, Protocol.UDP)

    def is_old() -> bool:
        stamps = [flow_map.layout.entry(value).stamp for _, value in tc.maps["flows"].items()]
        return time.monotonic_ns() // TICK_NS - max(stamps) > 3

    with unresolved(scene):
        client.sendto(b"?", (VIP, 80))
        until(is_old, within_s=LONGEST_S, what="it waited")
    server.sendto(*server.recvfrom(1))
    assert client.recv(1) == b"?"
