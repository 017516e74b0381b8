"""What it costs to follow a real API server; etcd and kube-apiserver share its cores.

- *in hand*: from the start of the process until all is listed and compiled; of source and compiler
  alone the median of several starts, of `kproxy run` one, by its log.
- *first sync*: until clients reach the first, the middle and the last Service.
- *one change*: from the moment when the API server has stored a moved endpoint until a client's
  packets reach it; how changes that come sooner fare, `bench.pace` says.
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
from bench.stage import Agent, Stage, build_stage, of_cluster, running, running_agent
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.relay import Relay

COMPILED = "all is listed"  # what kproxy logs when the first table is compiled
_PORT = 6443
_WITHIN_S = 120.0
_BETWEEN_CHANGES_S = (1.2, 1.8)  # so that no change waits for the last
_CHANGES_PER_S = 200
_CHANGING_S = 10
_WRITERS = 4
_STARTS = 7


@click.command()
@click.option("--services", default=10_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--changes", default=15, show_default=True)
@click.option("--variants", default="legacy,nft", show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(services: int, endpoints: int, changes: int, variants: str, date: str) -> None:
    """Measure start, memory, one change, and a storm of changes."""
    cluster = Cluster(services, endpoints)
    rows: list[Row] = []
    with filled(cluster) as plane:
        rows.append({"what": "source and compiler", **storm(cluster, plane)})
        for turn, variant in enumerate(variants.split(",")):
            moves = range(turn * changes, (turn + 1) * changes)
            rows.append({"what": variant, **agent_costs(cluster, plane, variant, moves)})
    parameters = {"services": services, "endpoints": endpoints, "changes": changes}
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
            began_s = time.monotonic()
            with running(command, None, scratch) as follower:
                starts_s.append(_until_said(follower, IN_HAND, began_s))
        with running(command, None, scratch) as follower:
            _until_said(follower, IN_HAND, time.monotonic())
            time.sleep(1)
            memory = follower.memory()
            cpu_before_s = follower.cpu_s()
            moves = range(_CHANGES_PER_S * _CHANGING_S)
            rate = change_many(cluster, plane, moves, per_s=_CHANGES_PER_S)
            cpu_s = follower.cpu_s() - cpu_before_s
    return {
        "in_hand_s": spread(starts_s, 2),
        "changes_per_s": round(rate, 1),
        "cores": round(cpu_s / _CHANGING_S * _CHANGES_PER_S / rate, 3),
        **dataclasses.asdict(memory),
    }


def agent_costs(cluster: Cluster, plane: ControlPlane, variant: str, moves: range) -> Row:
    """Start the real thing, move an endpoint several times, and return what that cost.

    `moves` are numbers that nobody used for a move before.
    """
    stage = build_stage()
    with (
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        relayed(plane, stage, Path(scratch)) as kubeconfig,
        answering(stage),
    ):
        began_s = time.monotonic()
        with running_agent(stage, of_cluster(kubeconfig), variant) as agent:
            in_hand_s = _until_said(agent, COMPILED, began_s)
            wait_for_every_service(cluster, stage, agent)
            first_sync_s = time.monotonic() - began_s
            delays_ms = change_one_by_one(
                cluster, plane, (stage, agent), moves=moves, between_s=_BETWEEN_CHANGES_S
            )
            memory = agent.memory()
    return {
        "in_hand_s": round(in_hand_s, 2),
        "first_sync_s": round(first_sync_s, 2),
        "change_ms": spread(delays_ms, 1),
        **dataclasses.asdict(memory),
    }


@contextmanager
def relayed(plane: ControlPlane, stage: Stage, scratch: Path) -> Iterator[Path]:
    """Make the API server reachable from the node; return a kubeconfig for there."""
    with Relay(plane.port, port=_PORT, entered=stage.node.entered):
        yield plane.kubeconfig(scratch / "kubeconfig", port=_PORT)


def _until_said(agent: Agent, words: str, began_s: float) -> float:
    while words not in agent.said():
        agent.check()
        if time.monotonic() - began_s > _WITHIN_S:
            raise TimeoutError(f"never said {words!r}:\n{agent.said()}")
        time.sleep(0.002)
    return time.monotonic() - began_s


def change_one_by_one(
    cluster: Cluster,
    plane: ControlPlane,
    node: tuple[Stage, Agent],
    *,
    moves: range,
    between_s: tuple[float, float],
) -> list[float]:
    """Move endpoints, and return how many ms it took each time until packets followed.

    The next one moves so long after that, at random. For `moves` see `agent_costs`.
    """
    stage, agent = node
    chance = random.Random(moves.start)
    delays_ms = []
    time.sleep(between_s[1])
    for moved in moves:
        number = chance.randrange(cluster.services)
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
