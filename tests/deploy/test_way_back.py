"""From kproxy back to the real kube-proxy, in the order that the operator's page gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.support.cluster import programs
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.relay import Relay
from tests.support.net.plan import CLIENT, CLUSTER_CIDR, NODE, POD1, POD2, POD3, in_family
from tests.support.node.cluster import NODE as NODE_OBJECT
from tests.support.node.cluster import both
from tests.support.node.node import STEM, Node
from tests.support.packets.objects import port
from tests.support.packets.table import NODE_NAME

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

EDGE = both("edge", "10.96.0.7", POD1, POD2, ports=(port(80, node_port=30080),))
SERVED = {
    "10.96.0.7:80": frozenset({POD1, POD2}),
    f"{NODE}:30080": frozenset({POD1, POD2}),
}
MOVED = dict.fromkeys(SERVED, frozenset({POD2}))
SOURCES = (CLIENT, POD3)
_ROUNDS = 50


@pytest.fixture(params=["nft", "legacy"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "node", request.param)
    yield node
    node.close()


def test_nothing_is_refused_if_kube_proxy_starts_before_the_clean_up(plane, node, tmp_path):
    for each in (NODE_OBJECT, *EDGE):
        plane.api.apply(json.loads(json.dumps(each)))
    node.manifests.put("shop", EDGE)
    assert node.ready().stop() == 0

    with kube_proxy(plane, node, tmp_path):
        while not ways_to(node, POD1) == ways_to(node, POD2) == set(Family):
            assert node.answers(SERVED, sources=SOURCES) == []
        _, *slices = both("edge", "10.96.0.7", POD2)
        for each in slices:
            plane.api.apply(json.loads(json.dumps(each)))
        while ways_to(node, POD1):
            assert node.answers(SERVED, sources=SOURCES) == []
        assert node.answers(MOVED, sources=SOURCES) == [], "its rules come before kproxy's"

        cleanup = node.kproxy("cleanup")
        while cleanup.process.poll() is None:
            assert node.answers(MOVED, sources=SOURCES) == []
        assert cleanup.ended() == 0, cleanup.said()
        assert node.ours() == []
        for _ in range(_ROUNDS):
            assert node.answers(MOVED, sources=SOURCES) == []


@contextmanager
def kube_proxy(plane: ControlPlane, node: Node, folder: Path) -> Iterator[None]:
    """Run the real one on the node while the body runs."""
    programs_here = folder / "programs"
    programs_here.mkdir()
    for stem in STEM.values():
        for end in ("", "-save", "-restore"):
            real = shutil.which(f"{stem}-{node.variant}{end}")
            assert real is not None
            (programs_here / f"{stem}{end}").symlink_to(real)
    log = folder / "kube-proxy.log"
    with Relay(plane.port, port=0, entered=node.network.node.entered) as relay:
        kubeconfig = plane.kubeconfig(folder / "kubeconfig", port=relay.port)
        flags = [
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE_NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={CLUSTER_CIDR},{in_family(CLUSTER_CIDR, Family.IPV6)}",
            # What belongs to the machine and not to the network namespace stays as it is.
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--oom-score-adj=0",
        ]
        path = f"{programs_here}:{os.environ['PATH']}"
        with node.network.node.entered(), log.open("wb") as output:
            process = subprocess.Popen(
                [str(programs.find("kube-proxy")), *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**node.environment, "PATH": path},
            )
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.kill()
            process.wait()


def ways_to(node: Node, pod: str) -> set[Family]:
    """Return over which families kube-proxy has rules for a pod as an endpoint."""
    return {
        family
        for family in Family
        for line in node.saved(family)
        if "-A KUBE-SEP-" in line and f"{in_family(pod, family)}/" in line
    }
