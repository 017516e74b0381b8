"""How soon packets follow changes that come at random, and what a storm of changes costs.

A real API server holds the cluster and shares its cores with the agent, which has its default
periods.

- *one change*: as in `bench.api`, but the next endpoint moves 0.2 to 1.5 s after packets followed
  the last one, so that what the agent pauses after a write shows.
- *1,000 changes*: the CPU of the agent and its children while 100 endpoints a second move.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from bench.answers import answering, wait_for_every_service
from bench.api import change_many, change_one_by_one, filled, relayed
from bench.cluster import Cluster
from bench.record import Row, record, spread
from bench.stage import build_stage, of_cluster, running_agent
from tests.support.cluster.control_plane import ControlPlane

_BETWEEN_CHANGES_S = (0.2, 1.5)
_CHANGES_PER_S = 100
_MANY = 1000
_SETTLED_WITHIN_S = 3.0  # the last of them is written


@click.command()
@click.option("--sizes", default="100,10000", show_default=True, help="Numbers of Services.")
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--changes", default=60, show_default=True)
@click.option("--variants", default="legacy,nft", show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(sizes: str, endpoints: int, changes: int, variants: str, date: str) -> None:
    """Measure changes at random, and a storm of them."""
    rows: list[Row] = []
    for size in map(int, sizes.split(",")):
        cluster = Cluster(size, endpoints)
        with filled(cluster) as plane:
            for turn, variant in enumerate(variants.split(",")):
                click.echo(f"pace: {variant}, {size} Services", err=True)
                first = turn * (changes + _MANY)
                single = range(first, first + changes)
                many = range(first + changes, first + changes + _MANY)
                rows.append(measure(cluster, plane, variant, single=single, many=many))
    parameters = {"endpoints": endpoints, "changes": changes, "between_s": _BETWEEN_CHANGES_S}
    record("pace", date=date, parameters=parameters, results=rows)


def measure(
    cluster: Cluster, plane: ControlPlane, variant: str, *, single: range, many: range
) -> Row:
    """Start an agent, move endpoints one by one at random, and then many.

    The ranges have numbers that nobody used for a move before.
    """
    stage = build_stage()
    with (
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        relayed(plane, stage, Path(scratch)) as kubeconfig,
        answering(stage),
        running_agent(stage, of_cluster(kubeconfig), variant) as agent,
    ):
        wait_for_every_service(cluster, stage, agent)
        delays_ms = change_one_by_one(
            cluster, plane, (stage, agent), moves=single, between_s=_BETWEEN_CHANGES_S
        )
        time.sleep(_SETTLED_WITHIN_S)
        before_s = agent.cpu_s()
        rate = change_many(cluster, plane, many, per_s=_CHANGES_PER_S)
        time.sleep(_SETTLED_WITHIN_S)
        cpu_s = agent.cpu_s() - before_s
    return {
        "variant": variant,
        "services": cluster.services,
        "change_ms": spread(delays_ms, 1),
        "storm_changes_per_s": round(rate, 1),
        "storm_cpu_s": round(cpu_s, 2),
    }


if __name__ == "__main__":
    main()
