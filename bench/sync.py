"""How fast the kernel follows, and what the agent costs, at several sizes of cluster.

The proof is a packet: a client keeps connecting, and each answer names the endpoint. Every run has
its own namespaces and the real `kproxy run` with its default periods.
"""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
from pathlib import Path

import click

from bench.answers import answering, wait_for_every_service, who_answers
from bench.cluster import (
    SERVICES_PER_FILE,
    Cluster,
    spare_address,
)
from bench.record import Row, record, spread
from bench.stage import DATA_PATHS, Agent, Stage, built_stage, of_manifests, running_agent
from tests.support.waiting import SLOWER

_FOLLOWED_WITHIN_S = 60.0 * SLOWER
_BETWEEN_PROBES_S = 0.0005
_BETWEEN_CHANGES_S = (1.2, 1.8)  # so that no change waits for the last


@click.command()
@click.option("--sizes", default="100,1000,10000", show_default=True, help="Numbers of Services.")
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--changes", default=7, show_default=True)
@click.option("--data-paths", default=",".join(DATA_PATHS), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(sizes: str, endpoints: int, changes: int, data_paths: str, date: str) -> None:
    """Measure first sync, the delay of one change, CPU and memory."""
    rows = []
    for data_path in data_paths.split(","):
        for size in map(int, sizes.split(",")):
            click.echo(f"sync: {data_path}, {size} Services", err=True)
            rows.append(measure(Cluster(size, endpoints), data_path, changes))
    parameters = {
        "endpoints": endpoints,
        "changes": changes,
        "services_per_file": SERVICES_PER_FILE,
    }
    record("sync", date=date, parameters=parameters, results=rows)


def measure(cluster: Cluster, data_path: str, changes: int) -> Row:
    """Start an agent on a cluster, move an endpoint several times, and return what that cost."""
    with (
        built_stage() as stage,
        stage.place.joined(),
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        answering(stage),
    ):
        manifests = Path(scratch) / "manifests"
        cluster.write(manifests)
        began_s = time.monotonic()
        with running_agent(stage, of_manifests(manifests), data_path) as agent:
            wait_for_every_service(cluster, stage, agent)
            first_sync_s = time.monotonic() - began_s
            first_cpu_s = agent.cpu_s()
            delays_ms, cpu_s = _change(cluster, stage, agent, manifests=manifests, times=changes)
            memory = agent.memory()
    return {
        "data_path": data_path,
        "services": cluster.services,
        "first_sync_s": round(first_sync_s, 2),
        "first_sync_cpu_s": round(first_cpu_s, 2),
        "change_ms": spread(delays_ms, 1),
        "cpu_per_change_ms": round(1000 * cpu_s / changes, 1),
        **dataclasses.asdict(memory),
    }


def _change(
    cluster: Cluster, stage: Stage, agent: Agent, *, manifests: Path, times: int
) -> tuple[list[float], float]:
    """Move one endpoint of some Service; return how long packets took to follow, and the CPU."""
    chance = random.Random(2)
    delays_ms = []
    time.sleep(_BETWEEN_CHANGES_S[1])
    before_s = agent.cpu_s()
    for moved in range(times):
        number = chance.randrange(cluster.services)
        expected = spare_address(moved)
        began_s = time.monotonic()
        cluster.write_file_of(number, manifests, moved)
        written_s = time.monotonic()
        while who_answers(stage, cluster.cluster_ip(number)) != expected:
            agent.check()
            if time.monotonic() - began_s > _FOLLOWED_WITHIN_S:
                raise TimeoutError(f"packets did not follow change {moved}")
            time.sleep(_BETWEEN_PROBES_S)
        delays_ms.append(1000 * (time.monotonic() - written_s))
        time.sleep(chance.uniform(*_BETWEEN_CHANGES_S))
    return delays_ms, agent.cpu_s() - before_s


if __name__ == "__main__":
    main()
