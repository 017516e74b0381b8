"""New connections per second: what a Service costs, and what 10,000 Services cost.

Two nodes stand side by side, one with a single Service and one with many; no agent runs while
connections are counted. Every round visits all paths in a new order, and what is compared are
rates of one round, so that a noisy machine disturbs both sides alike. Connection tracking is
emptied before each visit.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from bench.cluster import ENDPOINT_PORT, SERVICE_PORT, Cluster
from bench.record import Row, record, spread
from bench.stage import Stage, apply_once, build_stage, of_manifests

_SOURCE = Path(__file__).parent / "connect.c"
_FIRST_PORT = 10_000
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach an endpoint: through which node, and to which address."""

    name: str
    stage: Stage
    address: str
    port: int


@click.command()
@click.option("--services", default=10_000, show_default=True, help="Of the larger node.")
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--connections", default=2_000, show_default=True, help="In each visit.")
@click.option("--rounds", default=61, show_default=True)
@click.option("--variants", default="legacy,nft", show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(
    *, services: int, endpoints: int, connections: int, rounds: int, variants: str, date: str
) -> None:
    """Measure connections per second through the first and the last Service."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch:
        program = Path(scratch) / "connect"
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", program, _SOURCE], check=True)
        for variant in variants.split(","):
            click.echo(f"connections: {variant}", err=True)
            one, many = Cluster(1, endpoints), Cluster(services, endpoints)
            rows += measure(one, many, variant, program=program, visits=(rounds, connections))
    parameters = {
        "services": services,
        "endpoints": endpoints,
        "connections": connections,
        "rounds": rounds,
    }
    record("connections", date=date, parameters=parameters, results=rows)


def measure(
    one: Cluster, many: Cluster, variant: str, *, program: Path, visits: tuple[int, int]
) -> list[Row]:
    """Return a row for each path: its rate, and its ratio to the single Service's."""
    rounds, connections = visits
    small, large = _programmed(one, variant), _programmed(many, variant)
    last = many.cluster_ip(many.services - 1)
    endpoint = one.endpoint_slice(0)["endpoints"][0]["addresses"][0]
    baseline = Way("1 Service", small, one.cluster_ip(0), SERVICE_PORT)
    paths = [
        Way("straight, 1 Service on the node", small, endpoint, ENDPOINT_PORT),
        baseline,
        Way("straight, many on the node", large, endpoint, ENDPOINT_PORT),
        Way("first of many", large, many.cluster_ip(0), SERVICE_PORT),
        Way("last of many", large, last, SERVICE_PORT),
    ]
    rates: dict[str, list[float]] = {path.name: [] for path in paths}
    chance = random.Random(3)
    with _serving(small, program), _serving(large, program):
        for path in paths:
            _visit(path, program, connections)  # warms caches up, not counted
        for _ in range(rounds):
            for path in chance.sample(paths, len(paths)):
                rates[path.name].append(_visit(path, program, connections))
    return [
        {
            "variant": variant,
            "path": path.name,
            "per_second": spread(rates[path.name], 0),
            "ratio_to_1_service": _ratio(rates[path.name], rates[baseline.name]),
        }
        for path in paths
    ]


def _ratio(rates: list[float], baseline: list[float]) -> float:
    pairs = zip(rates, baseline, strict=True)
    return round(statistics.median(rate / base for rate, base in pairs), 3)


def _programmed(cluster: Cluster, variant: str) -> Stage:
    stage = build_stage()
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch:
        manifests = Path(scratch) / "manifests"
        cluster.write(manifests)
        apply_once(stage, of_manifests(manifests), variant)
    return stage


@contextlib.contextmanager
def _serving(stage: Stage, program: Path) -> Iterator[None]:
    """Accept connections at every endpoint."""
    with stage.far.entered():
        command = [str(program), "serve", str(ENDPOINT_PORT)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    try:
        yield
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _visit(path: Way, program: Path, connections: int) -> float:
    """Open that many connections; return the rate."""
    with path.stage.node.entered():
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
    command = [str(program), "run", path.address, str(path.port)]
    command += [str(connections), str(_FIRST_PORT)]
    with path.stage.client.entered():
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_WITHIN_S
        )
    return connections / float(done.stdout)


if __name__ == "__main__":
    main()
