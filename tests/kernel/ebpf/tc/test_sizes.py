"""Packets through the tc programs that are too large for a link on their way."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.scene import Scene, as_is
from tests.support.ebpf.tc import Use, everyone
from tests.support.net import plan
from tests.support.net.namespace import Namespace
from tests.support.net.plan import in_family

pytestmark = pytest.mark.kernel

NODE_PORT = 30001
VIP = "10.96.0.1"
NEAR_END, FAR_END = "198.51.77.10", "198.51.77.11"
MACS = {NEAR_END: "02:00:00:00:42:01", FAR_END: "02:00:00:00:42:02"}
WIDE = 1500
NARROW = 1400
CHUNK, CHUNKS = 16 << 10, 16
DATAGRAM = 4000
TRIES = 10

TUNNEL = 1450  # what VXLAN leaves of the 1500 below it
# More than fits: so what is too large is sent, and the path has to say so.
ADVERTISED = 1440
HEADERS = 60  # of a segment

# IP_MTU and IPV6_MTU: how large a packet a connected socket takes its path for
MTU = {Family.IPV4: (socket.IPPROTO_IP, 14), Family.IPV6: (socket.IPPROTO_IPV6, 24)}


class Widths(NamedTuple):
    """How wide the links are: to the endpoint, which may be behind a tunnel, and to the client."""

    endpoint: int = WIDE
    client: int = WIDE
    by_tunnel: bool = False

    def narrowest(self, client: str) -> int:
        """Return how large a packet passes from one end to the other."""
        return min(self.endpoint, self.client if client == plan.CLIENT else WIDE)


PATHS = {
    "endpoint": Widths(endpoint=NARROW),
    "client": Widths(client=NARROW),
    "tunnel": Widths(endpoint=TUNNEL, by_tunnel=True),
    "tunnel and client": Widths(endpoint=TUNNEL, client=NARROW, by_tunnel=True),
}


@pytest.fixture(scope="module", params=PATHS.values(), ids=PATHS)
def path(request: pytest.FixtureRequest) -> Widths:
    return request.param


@pytest.fixture(scope="module")
def scene(path: Widths, bytecode: Path) -> Iterator[Scene]:
    """A node with narrow links."""
    made = Scene(as_is(bytecode))
    if path.by_tunnel:
        dig_tunnel(made)
    else:
        narrow(made, "eth1", "node2", path.endpoint)
    narrow(made, "eth0", "outside", path.client)
    yield made
    made.close()


def narrow(scene: Scene, device: str, peer: str, mtu: int) -> None:
    """Set how large packets on a link may be; what is behind it takes larger ones itself."""
    gateway = {"node2": plan.NODE_SECOND, "outside": plan.NODE}[peer]
    configure(scene.network.node, f"link set {device} mtu {mtu}")
    configure(
        scene.network.namespaces[peer],
        f"link set eth0 mtu {mtu}",
        f"route replace {gateway} dev eth0 advmss {ADVERTISED}",
        f"route replace default via {gateway} dev eth0 advmss {ADVERTISED}",
    )


def dig_tunnel(scene: Scene) -> None:
    """Put the second node's pods behind VXLAN, as network plugins do."""
    node, far = scene.network.node, scene.network.namespaces["node2"]
    ends = ((node, NEAR_END, plan.NODE_SECOND), (far, FAR_END, plan.NODE2))
    for (own, end, local), (_, other_end, remote) in (ends, ends[::-1]):
        device = "eth1" if own is node else "eth0"
        kind = f"type vxlan id 42 local {local} remote {remote} dev {device} dstport 4789"
        configure(
            own,
            f"link add vxlan0 address {MACS[end]} {kind}",
            f"addr add {end}/24 dev vxlan0",
            "link set vxlan0 up",
            f"neigh add {other_end} lladdr {MACS[other_end]} dev vxlan0 nud permanent",
        )
    configure(node, f"route replace {plan.FAR_POD_CIDR} via {FAR_END} dev vxlan0")
    configure(far, f"route replace default via {NEAR_END} dev vxlan0 advmss {ADVERTISED}")
    configure(far, f"route replace {NEAR_END} dev vxlan0 advmss {ADVERTISED}")
    for tc in scene.tc.values():
        tc.claims.add([tc.packed(NEAR_END)])  # an address of the node, as the others
    scene.attach_to("vxlan0")


def configure(machine: Namespace, *lines: str) -> None:
    """Run `ip` in a namespace with lines that name IPv4 addresses, for both families."""
    for family in Family:
        about = [line for line in lines if family is Family.IPV4 or not line.startswith("link")]
        told = [in_family(line, family) for line in about]
        told = [
            line + (" nodad" if line.startswith("addr") and ":" in line else "") for line in told
        ]
        text = "\n".join(told)
        with machine.entered():
            output_of("ip", f"-{family.value[-1]}", "-batch", "-", stdin=text, timeout_s=10)


@pytest.fixture(autouse=True)
def _forgotten(scene: Scene) -> Iterator[None]:
    yield
    scene.forget()
    # It learns another path to the same address of the node, by whom the node masquerades.
    configure(scene.network.namespaces["node2"], "route flush cache")


def passed_on(sender: socket.socket, receiver: socket.socket) -> bool:
    """Send many bytes from one socket to another; say whether they came as they were."""
    for number in range(CHUNKS):
        chunk = bytes([number]) * CHUNK
        sender.sendall(chunk)
        came = b""
        while len(came) < CHUNK:
            came += receiver.recv(CHUNK - len(came))
        if came != chunk:
            return False
    return True


@pytest.mark.parametrize("uses", [everyone(masquerade=True), (Use(), Use(), Use(masquerade=True))])
@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD1, plan.NODE])
def test_bulk_goes_through_both_ways_by_what_the_path_says_of_itself(
    scene: Scene, path: Widths, family: Family, client: str, uses: tuple[Use, Use, Use]
):
    scene.frontend(NODE_PORT, [plan.FAR1], uses, port=9005)
    listener = scene.listener(plan.FAR1, family, 9005)
    talker = scene.socket(client, family)
    if client == plan.NODE:  # of loopback Linux is slow to believe it: deploy/ebpf.md
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, path.endpoint - HEADERS)

    talker.connect((in_family(plan.NODE, family), NODE_PORT))
    server, _ = listener.accept()
    server.settimeout(10)

    with server:
        assert passed_on(talker, server)
        assert passed_on(server, talker)
        believed = {each.getsockopt(*MTU[family]) for each in (talker, server)}
    assert client == plan.NODE or believed == {path.narrowest(client)}


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD1, plan.NODE])
def test_fragments_follow_the_first(scene: Scene, family: Family, client: str, masquerade: bool):
    scene.frontend((VIP, 80), [plan.FAR1], everyone(masquerade=masquerade), port=9006)
    server = scene.socket(plan.FAR1, family, Protocol.UDP, port=9006)
    talker = scene.socket(client, family, Protocol.UDP)
    if family is Family.IPV4:  # a path that is too narrow shall not be known beforehand
        for each in (server, talker):
            each.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: fragment here and there
    to = (in_family(VIP, family), 80)
    question, answer = b"?" * DATAGRAM, b"!" * DATAGRAM

    asked, seen = said(talker, question, to, server)
    answered, by = said(server, answer, seen, talker)

    assert asked == question
    assert (answered, by[:2]) == (answer, to)


def said(
    sender: socket.socket, what: bytes, to: tuple, receiver: socket.socket
) -> tuple[bytes, tuple]:
    """Return what comes of a datagram; the first ones may be lost, and tell what fits."""
    receiver.settimeout(0.3)
    for _ in range(TRIES):
        sender.sendto(what, to)
        with contextlib.suppress(TimeoutError):
            return receiver.recvfrom(1 << 16)
    raise AssertionError("nothing came")
