"""The real kube-proxy in its mode ipvs beside kproxy: the first sync of the same fake API server.

Both are told of the same objects, in JSON, by one process that serves them alike. A first sync goes
from the start of the process until it says itself that all is in the kernel, in both families; then
it is counted whether that is so.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.kernel.virtual_servers import VirtualServers
from bench.cluster import NODE_NAME, POD_RANGE, Cluster
from bench.record import Row
from bench.stage import IPVS, Agent, Stage, built_stage, of_cluster, running, running_agent
from kproxy.core.addresses import Family
from tests.support.cluster import original
from tests.support.cluster.fake_cluster import FakeCluster

KPROXY, KUBE_PROXY = "kproxy", "kube-proxy"
_READY = "ready: "


@dataclass(frozen=True, slots=True)
class Started:
    """What a first sync took, and what was in the kernel after it."""

    first_sync_s: float
    cpu_s: float
    servers: int
    destinations: int


def first_sync(cluster: Cluster, which: str) -> Started:
    """Start one of the two on a fresh node, and return what its first sync took."""
    with (
        built_stage() as stage,
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        FakeCluster(stage.node, Path(scratch)) as followed,
    ):
        followed.apply(cluster.objects())
        began_s = time.monotonic()
        with _proxy(stage, which, followed, Path(scratch)) as (proxy, words, times):
            proxy.wait_for(words, times=times)
            took_s = time.monotonic() - began_s
            cpu_s = proxy.cpu_s()
            servers, destinations = _in_kernel(stage)
    if destinations < cluster.services * cluster.endpoints:
        raise RuntimeError(f"{which} said that it was ready with {destinations} destinations")
    return Started(round(took_s, 2), round(cpu_s, 2), servers, destinations)


def row_of(which: str, seen: list[Started]) -> Row:
    """Return the row of several first syncs, each with its seconds."""
    return {
        "what": "first sync",
        "who": which,
        "first_sync_s": [each.first_sync_s for each in seen],
        "cpu_s": [each.cpu_s for each in seen],
        "servers": seen[-1].servers,
        "destinations": seen[-1].destinations,
    }


@contextlib.contextmanager
def _proxy(
    stage: Stage, which: str, followed: FakeCluster, scratch: Path
) -> Iterator[tuple[Agent, str, int]]:
    """Run one of them; yield it, and which words it says how often when all is in the kernel."""
    if which == KPROXY:
        with running_agent(stage, of_cluster(followed.kubeconfig), IPVS) as agent:
            yield agent, _READY, 1
        return
    document = original.configuration(followed.kubeconfig, mode="ipvs", clusterCIDR=POD_RANGE)
    command = [*original.command(document, scratch, NODE_NAME), original.VERBOSE]
    with running(command, stage.node, str(scratch)) as agent:
        yield agent, original.SYNC_ENDED, len(Family)


def _in_kernel(stage: Stage) -> tuple[int, int]:
    """Return how many virtual servers and destinations there are on the node."""
    with stage.node.entered(), VirtualServers("counting") as kernel:
        servers = [server for server, _ in kernel.servers()]
        return len(servers), sum(len(kernel.destinations(each)) for each in servers)
