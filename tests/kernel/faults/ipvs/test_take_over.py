"""From the real kube-proxy in mode ipvs to kproxy, and back: nobody is cut, nobody is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from pyroute2 import IPVS as Ipvs

from backends.kernel.virtual_servers import Server, VirtualServers
from backends.kube_proxy.ipvs_leftovers import LINK
from backends.kube_proxy.takeover import FORWARDING
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults import foreign
from tests.kernel.faults.flowing import Flowing
from tests.kernel.faults.ipvs.conftest import EVERY_WAY
from tests.support.cluster.fake_cluster import FakeCluster
from tests.support.cluster.original import Original, configuration
from tests.support.ipvs.on_node import FOREIGN
from tests.support.net.plan import CLIENT, NODE_VIP, POD1, POD2, POD3, in_family, ipv6_of
from tests.support.node.cluster import NODE as NODE_OBJECT
from tests.support.node.cluster import both
from tests.support.node.node import Node
from tests.support.node.proxy import Proxy
from tests.support.node.web import LOCAL_FRONTENDS, SLICE_PORTS, web_everywhere, web_locally
from tests.support.packets.objects import port
from tests.support.packets.table import NODE_NAME
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

PODS = (POD1, POD2, POD3)
ROUNDS = 3
# What kproxy serves by marks, which kube-proxy has not: the clean-up cuts it (see deploy/ipvs.md).
BY_MARKS = [way for way in EVERY_WAY if way[1] in LOCAL_FRONTENDS and way[0] != CLIENT]
# An address that the node has by itself, so that kube-proxy does not put it on its link.
AT_THE_NODES_OWN = [
    (CLIENT, f"{NODE_VIP}:80", Protocol.TCP, Family.IPV4),
    (POD3, f"{NODE_VIP}:80", Protocol.UDP, Family.IPV6),
]


class Swapping:
    """A node of a cluster that the real kube-proxy follows, and kproxy by the same configuration.

    Strangers have something of everything on it, and nothing is forwarded that nobody lets through.
    """

    def __init__(self, node: Node, cluster: FakeCluster) -> None:
        self.node = node
        self._cluster = cluster
        strangers = [f"{in_family(FOREIGN[0], each)}/{each.bits}" for each in Family]
        # Else kube-proxy removes their virtual servers.
        self._document = configuration(
            cluster.kubeconfig, mode="ipvs", ipvs={"excludeCIDRs": strangers}
        )
        for family in Family:
            node.iptables(family, "-P FORWARD DROP")
        foreign.settle(node)
        self.others = foreign.seen(node)
        cluster.apply([NODE_OBJECT])
        self.serve(POD1)
        self._started: list[Original] = []

    def serve(self, *pods: str) -> None:
        """Let these pods be what is behind every frontend, of both policies."""
        at_the_nodes_own = both(
            "web-at-the-nodes-own",
            "10.96.0.22",
            *pods,
            ports=(port(80, name="tcp"), port(80, name="udp", protocol="UDP")),
            slice_ports=SLICE_PORTS,
            externalIPs=[NODE_VIP, ipv6_of(NODE_VIP)],
        )
        self._cluster.apply([*web_everywhere(*pods), *web_locally(*pods), *at_the_nodes_own])

    def kube_proxy(self) -> Original:
        """Start kube-proxy."""
        self._started.append(Original(self.node, self.node.folder / "original", self._document))
        return self._started[-1]

    def kproxy(self) -> Proxy:
        """Start kproxy in its place, and wait until it is ready."""
        config = self.node.folder / "config.conf"
        config.write_text(json.dumps(self._document))
        proxy = self.node.kproxy(
            "kube-proxy", f"--config={config}", f"--hostname-override={NODE_NAME}"
        )
        proxy.wait_for("ready: ")
        return proxy

    def flowing(self, ways) -> Flowing:
        """Converse in these ways."""
        return Flowing(self.node.network, PODS, ways, connected=False)

    def meets(self, flowing: Flowing, *pods: str) -> None:
        """Let these pods be all that there is, and wait until new connections meet them."""
        self.serve(*pods)
        until(
            lambda: flowing.flow(1).new_met == {*pods},
            within_s=LONGEST_S,
            what="new ones meet the new endpoint",
        )

    def kube_proxys(self) -> list[str]:
        """Return what there is of kube-proxy besides virtual servers."""
        seen = [line.partition("] ")[2] or line for line in foreign.seen(self.node)]
        known = {line.partition("] ")[2] or line for line in self.others}
        rules = [line for line in seen if line not in known]
        sets = self.node.run("ipset list -n").split()
        links = [line for line in self.node.run("ip -br link").split() if line == LINK]
        return [*rules, *(name for name in sets if name.startswith("KUBE-")), *links]

    def nobody_lost_anything(self) -> bool:
        """Say whether all of strangers is there as it was."""
        return set(self.others) <= set(foreign.seen(self.node))

    def close(self) -> None:
        """End what still runs of kube-proxy."""
        for each in self._started:
            each.kill()


@pytest.fixture
def swapping(node):
    with (
        FakeCluster(node.network.node, node.folder) as cluster,
        contextlib.closing(Swapping(node, cluster)) as swapping,
    ):
        yield swapping


def connections(node: Node) -> dict[tuple[object, ...], int]:
    """Return how many connections each virtual server of an address has counted so far."""
    counted = {}
    with node.network.node.entered(), Ipvs() as kernel:
        for message in kernel.service("dump"):
            server = message.get("service")
            if server.get("addr") is not None:
                where = tuple(server.get(each) for each in ("protocol", "addr", "port"))
                counted[where] = server.get("stats").get("IPVS_STATS_ATTR_CONNS")
    return counted


def servers(node: Node) -> set[Server]:
    """Return the virtual servers that are there."""
    with node.network.node.entered(), VirtualServers("looking") as kernel:
        return {server for server, _ in kernel.servers()}


def test_kproxy_goes_on_with_what_kube_proxy_made(swapping):
    node = swapping.node
    kube_proxy = swapping.kube_proxy().ready()
    with swapping.flowing([*EVERY_WAY, *AT_THE_NODES_OWN]) as flowing:
        assert flowing.flow(ROUNDS).silenced == []
        kube_proxy.stop()
        before = connections(node)
        proxy = swapping.kproxy()
        assert flowing.flow(1).silenced == []
        assert flowing.lasting_met == {POD1}
        after = connections(node)
        assert [each for each in before if after[each] < before[each]] == [], "none is made again"
        swapping.meets(flowing, POD1, POD2)
        served = swapping.kube_proxys()
        assert LINK in served
        assert f":{FORWARDING} -" in served
        assert swapping.nobody_lost_anything()
        flowing.end()
        assert flowing.silenced == []

    node.run("conntrack -F")  # as the kernel forgets it a while after the last packet
    until(lambda: swapping.kube_proxys() == [], within_s=LONGEST_S, what="nothing of it is left")
    assert proxy.stop() == 0
    assert node.kproxy("cleanup").ended() == 0
    assert node.ours() == []
    assert foreign.seen(node) == swapping.others


def test_kube_proxy_comes_back_beside_kproxy(swapping):
    node = swapping.node
    proxy = swapping.kproxy()
    ways = [*(way for way in EVERY_WAY if way not in BY_MARKS), *AT_THE_NODES_OWN]
    with swapping.flowing(ways) as flowing:
        assert flowing.flow(ROUNDS).silenced == []
        swapping.kube_proxy().ready()
        assert proxy.stop() == 0
        assert flowing.flow(1).silenced == []
        its = {each for each in servers(node) if not each.mark}
        assert node.kproxy("cleanup").ended() == 0
        assert servers(node) == its
        assert [line for line in node.ours() if not line.startswith("Server(")] == []
        assert flowing.flow(1).lasting_met == {POD1}
        swapping.meets(flowing, POD1, POD2)
        assert flowing.silenced == []
        assert swapping.nobody_lost_anything()
