"""From the real kube-proxy to kproxy and back, with clients that never stop."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.cluster.beside.traffic import PORT, Traffic, serving
from tests.support.cluster.place import Place
from tests.support.net.plan import CLIENT, NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

SLICE_PORTS = ({"name": "", "port": PORT, "protocol": "TCP"},)
ROUNDS = 20


def web(*pods):
    ports = ({**port(80, node_port=30020), "targetPort": PORT},)
    return both("web", "10.96.0.20", *pods, ports=ports, slice_ports=SLICE_PORTS)


# kubelet writes it too and counts on it: neither kube-proxy nor kproxy removes it.
KUBELETS = "KUBE-FIREWALL"


@pytest.fixture
def variant():
    return "nft"


@pytest.fixture
def place(tmp_path, variant, plane):
    place = Place(tmp_path / "place", variant, plane)
    place.apply(web(POD1, POD2))
    with serving(place.node.network, POD1, POD2):
        yield place
    place.close()
    place.delete(web())


def traffic_through(place):
    return Traffic(place.node.network, [POD3, CLIENT], ["10.96.0.20:80", f"{NODE}:30020"])


def kube_proxys(place):
    """Return what is in the kernel under kube-proxy's names and is not kubelet's too."""
    lines = [
        line for family in Family for line in place.node.iptables(family, "-save").splitlines()
    ]
    tables = place.node.run("nft list tables").splitlines()
    return [
        line
        for line in [*lines, *(table for table in tables if table.endswith(" kube-proxy"))]
        if "KUBE-" in line.replace(KUBELETS, "") or line.endswith(" kube-proxy")
    ]


def serves_alone(place, traffic, pod):
    """Let the Service have one pod, and wait until nobody else gets new connections."""
    place.apply(web(pod))

    def moved():
        traffic.forget()
        traffic.pass_rounds(1)
        return traffic.answered_by == {pod}

    until(moved, within_s=LONGEST_S, what=f"new connections reach {pod} alone")


@pytest.mark.parametrize(
    ("variant", "mode"), [("nft", "iptables"), ("legacy", "iptables"), ("nft", "nftables")]
)
def test_nobody_notices_that_kproxy_comes_in_its_place(place, start_original, mode):
    original = start_original(place, mode)
    assert kube_proxys(place)
    with traffic_through(place) as traffic:
        traffic.pass_rounds(ROUNDS)
        original.stop()
        assert kube_proxys(place), "what it leaves keeps the traffic going"
        place.ready()
        assert kube_proxys(place) == []
        traffic.pass_rounds(ROUNDS)
        assert traffic.answered_by == {POD1, POD2}
        serves_alone(place, traffic, POD2)
    assert traffic.failed == []


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_nobody_notices_that_kube_proxy_comes_back(place, start_original):
    proxy = place.ready()
    with traffic_through(place) as traffic:
        traffic.pass_rounds(ROUNDS)
        assert proxy.stop() == 0
        start_original(place)
        traffic.pass_rounds(ROUNDS)
        cleaning = place.start("--cleanup")
        assert cleaning.ended() == 0, cleaning.said()
        assert place.node.ours() == []
        assert kube_proxys(place)
        serves_alone(place, traffic, POD2)
    assert traffic.failed == []
