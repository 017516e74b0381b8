"""What it costs to follow a real API server; etcd and kube-apiserver share its cores.

- *in hand*: from the start of the process until all is listed and compiled; of source and compiler
  alone the median of several starts, of `kproxy run` one, by its log.
- *first sync*: until clients reach the first, the middle and the last Service. The eBPF data path
  compiles its programs once, and keeps them: so it starts with and without what it has kept.
- *200 changes a second*: the CPU of source and compiler alone (`bench.follower`), in cores.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import click

from bench.answers import answering, wait_for_every_service, who_answers
from bench.cluster import Cluster, spare_address
from bench.follower import IN_HAND
from bench.record import Row, record, spread
from bench.stage import (
    COMPILING,
    DATA_PATHS,
    Agent,
    Memory,
    Stage,
    built_stage,
    of_cluster,
    running,
    running_agent,
)
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.relay import Relay

COMPILED = "all is listed"  # what kproxy logs when the first table is compiled
_PORT = 6443
_WITHIN_S = 120.0
_CHANGES_PER_S = 200
_CHANGING_S = 10
_WRITERS = 4
_STARTS = 7
_STARTS_WITH_KERNEL = 3


@click.command()
@click.option("--services", default=10_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--data-paths", default=",".join((*DATA_PATHS, COMPILING)), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(services: int, endpoints: int, data_paths: str, date: str) -> None:
    """Measure start, memory, and a storm of changes without a kernel."""
    cluster = Cluster(services, endpoints)
    rows: list[Row] = []
    with filled(cluster) as plane:
        rows.append({"what": "source and compiler", **storm(cluster, plane)})
        for data_path in data_paths.split(","):
            click.echo(f"api: {data_path}", err=True)
            costs = agent_costs(cluster, plane, data_path, starts=_STARTS_WITH_KERNEL)
            rows.append({"what": data_path, **costs})
    parameters = {"services": services, "endpoints": endpoints}
    record("api", date=date, parameters=parameters, results=rows)


@contextmanager
def filled(cluster: Cluster) -> Iterator[ControlPlane]:
    """Run an API server that holds a cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        ControlPlane(Path(scratch) / "plane") as plane,
    ):
        plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
        objects = cluster.objects()
        plane.api.apply(next(objects))
        plane.seed(objects)
        yield plane


def storm(cluster: Cluster, plane: ControlPlane) -> Row:
    """Hold the cluster without a kernel, then move 200 endpoints a second."""
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch:
        kubeconfig = plane.kubeconfig(Path(scratch) / "kubeconfig")
        command = (sys.executable, "-m", "bench.follower", str(kubeconfig))
        starts_s = []
        for _ in range(_STARTS):
            with running(command, None, scratch) as follower:
                starts_s.append(follower.wait_for(IN_HAND))
        with running(command, None, scratch) as follower:
            follower.wait_for(IN_HAND)
            time.sleep(1)
            memory = follower.memory()
            cpu_before_s = follower.cpu_s()
            moves = range(_CHANGES_PER_S * _CHANGING_S)
            rate = change_many(cluster, plane, moves, per_s=_CHANGES_PER_S)
            cpu_s = follower.cpu_s() - cpu_before_s
    return {
        "in_hand_s": spread(starts_s, 2),
        "changes_per_s": round(rate, 1),
        # At the rate that is wanted, whatever it became: there are as many changes in any case.
        "cores": round(cpu_s / _CHANGING_S, 3),
        **dataclasses.asdict(memory),
    }


def agent_costs(cluster: Cluster, plane: ControlPlane, data_path: str, *, starts: int) -> Row:
    """Start the real thing several times, each on a fresh node, and return what that cost."""
    seen = [start(cluster, plane, data_path) for _ in range(starts)]
    in_hand_s, first_sync_s, memories = zip(*seen, strict=True)
    return {
        "in_hand_s": spread(in_hand_s, 2),
        "first_sync_s": spread(first_sync_s, 2),
        **{name: max(getattr(each, name) for each in memories) for name in Memory.__slots__},
    }


def start(cluster: Cluster, plane: ControlPlane, data_path: str) -> tuple[float, float, Memory]:
    """Start the agent once; return when all was in hand, when packets passed, and its memory."""
    with (
        built_stage() as stage,
        stage.place.joined(),
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        relayed(plane, stage, Path(scratch)) as kubeconfig,
        answering(stage),
    ):
        began_s = time.monotonic()
        with running_agent(stage, of_cluster(kubeconfig), data_path) as agent:
            in_hand_s = agent.wait_for(COMPILED)
            wait_for_every_service(cluster, stage, agent)
            first_sync_s = time.monotonic() - began_s
            return in_hand_s, first_sync_s, agent.memory()


@contextmanager
def relayed(plane: ControlPlane, stage: Stage, scratch: Path) -> Iterator[Path]:
    """Make the API server reachable from the node; return a kubeconfig for there."""
    with Relay(plane.port, port=_PORT, entered=stage.node.entered):
        yield plane.kubeconfig(scratch / "kubeconfig", port=_PORT)


def change_one_by_one(
    cluster: Cluster,
    plane: ControlPlane,
    node: tuple[Stage, Agent],
    *,
    moves: range,
    among: range,
    between_s: tuple[float, float],
) -> list[float]:
    """Move endpoints, and return how many ms it took each time until packets followed.

    The next one moves so long after that, at random, and is of one of the Services in `among`.
    `moves` are numbers that nobody used for a move before.
    """
    stage, agent = node
    chance = random.Random(moves.start)
    delays_ms = []
    time.sleep(between_s[1])
    for moved in moves:
        number = chance.choice(among)
        expected = spare_address(moved)
        plane.api.replace(cluster.endpoint_slice(number, moved))
        stored_s = time.monotonic()
        while who_answers(stage, cluster.cluster_ip(number)) != expected:
            agent.check()
            if time.monotonic() - stored_s > _WITHIN_S:
                raise TimeoutError(f"packets did not follow change {moved}")
        delays_ms.append(1000 * (time.monotonic() - stored_s))
        time.sleep(chance.uniform(*between_s))
    return delays_ms


def change_many(cluster: Cluster, plane: ControlPlane, moves: range, *, per_s: int) -> float:
    """Move an endpoint of one Service after the other; return how many a second it became."""
    numbers = itertools.cycle(range(cluster.services))
    began_s = time.monotonic()

    def change(n: int, number: int) -> None:
        due_s = began_s + n / per_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        plane.api.replace(cluster.endpoint_slice(number, moves[n]))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(change, range(len(moves)), itertools.islice(numbers, len(moves))))
    return len(moves) / (time.monotonic() - began_s)


if __name__ == "__main__":
    main()
