"""How soon packets follow changes that come at random, and what a storm of changes costs.

A real API server holds the cluster and shares its cores with the agent, which has its default
periods.

- *one change*: from the moment when the API server has stored a moved endpoint until a client's
  packets reach it. The next one moves 0.2 to 1.5 s after packets followed, so that what the agent
  pauses after a write shows.
- *in a storm*: the same, every 50 to 200 ms, while 100 endpoints a second move elsewhere.
- *1,000 changes*: the CPU of the agent and its children for those.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from bench.answers import answering, wait_for_every_service
from bench.api import change_many, change_one_by_one, filled, relayed
from bench.cluster import Cluster
from bench.record import Row, record, spread
from bench.stage import DATA_PATHS, built_stage, of_cluster, running_agent
from tests.support.cluster.control_plane import ControlPlane

_ALONE_S = (0.2, 1.5)
_IN_STORM_S = (0.05, 0.2)
_CHANGES_PER_S = 100
_MANY = 1000
_SETTLED_WITHIN_S = 3.0  # the last of them is written


@click.command()
@click.option("--services", default=10_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--changes", default=40, show_default=True)
@click.option("--data-paths", default=",".join(DATA_PATHS), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(services: int, endpoints: int, changes: int, data_paths: str, date: str) -> None:
    """Measure changes at random, and a storm of them."""
    rows: list[Row] = []
    cluster = Cluster(services, endpoints)
    with filled(cluster) as plane:
        for turn, data_path in enumerate(data_paths.split(",")):
            click.echo(f"pace: {data_path}", err=True)
            first = turn * (2 * changes + _MANY)
            moves = range(first, first + 2 * changes + _MANY)
            rows.append(measure(cluster, plane, data_path, changes=changes, moves=moves))
    parameters = {
        "services": services,
        "endpoints": endpoints,
        "changes": changes,
        "alone_s": _ALONE_S,
        "in_storm_s": _IN_STORM_S,
    }
    record("pace", date=date, parameters=parameters, results=rows)


def measure(
    cluster: Cluster, plane: ControlPlane, data_path: str, *, changes: int, moves: range
) -> Row:
    """Start an agent, move endpoints one by one at random, and then also in a storm.

    `moves` are numbers that nobody used for a move before.
    """
    alone, in_storm, many = moves[:changes], moves[changes : 2 * changes], moves[2 * changes :]
    with (
        built_stage() as stage,
        stage.place.joined(),
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        relayed(plane, stage, Path(scratch)) as kubeconfig,
        answering(stage),
        running_agent(stage, of_cluster(kubeconfig), data_path) as agent,
        ThreadPoolExecutor(1) as beside,
    ):
        wait_for_every_service(cluster, stage, agent)
        node = (stage, agent)
        everywhere, elsewhere = range(cluster.services), range(_MANY, cluster.services)
        alone_ms = change_one_by_one(
            cluster, plane, node, moves=alone, among=everywhere, between_s=_ALONE_S
        )
        time.sleep(_SETTLED_WITHIN_S)
        before_s = agent.cpu_s()
        storm = beside.submit(change_many, cluster, plane, many, per_s=_CHANGES_PER_S)
        in_storm_ms = change_one_by_one(
            cluster, plane, node, moves=in_storm, among=elsewhere, between_s=_IN_STORM_S
        )
        rate = storm.result()
        time.sleep(_SETTLED_WITHIN_S)
        cpu_s = agent.cpu_s() - before_s
    return {
        "data_path": data_path,
        "change_ms": spread(alone_ms, 1),
        "storm_change_ms": spread(in_storm_ms, 1),
        "storm_changes_per_s": round(rate, 1),
        "storm_cpu_s": round(cpu_s * len(many) / (len(many) + len(in_storm)), 2),
    }


if __name__ == "__main__":
    main()
