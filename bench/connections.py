"""New connections per second: what a Service costs, and what 10,000 Services cost.

For each data path two nodes stand side by side, one with a single Service and one with many, and
beside them all one without kproxy. Every round visits all ways in a new order, and what is
compared are rates of one round, so that a noisy machine disturbs both sides alike. Connection
tracking is emptied before each visit.

A pod of the node connects to an address that is no Service's and no endpoint's, straight to an
endpoint, or to a clusterIP; somebody outside connects to a NodePort, whose endpoints are on other
nodes. The rules of iptables stand without an agent.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from bench.cluster import ENDPOINT_PORT, NODE_ADDRESS, SERVICE_PORT, Cluster, spare_address
from bench.load.talk import UNDISTURBED
from bench.programmed import compiled, programmed
from bench.record import Row, ratio, record, spread
from bench.stage import DATA_PATHS, IPTABLES, Stage, built_stage
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

_FIRST_PORT, _LAST_PORT = 10_000, 65_535
_FOREIGN = ("no kproxy", "no Service")
_NOBODYS = spare_address(40_000)  # it answers all the same, as do all in the endpoints' range
_WITHIN_S = 60.0 * SLOWER


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach an endpoint: from whom, through which node, and to which address.

    `baselines` are the names of the ways that it is compared with.
    """

    data_path: str
    path: str
    stage: Stage
    client: Namespace
    address: str
    port: int
    baselines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called as a baseline."""
        return f"{self.data_path}, {self.path}"


@click.command()
@click.option("--services", default=10_000, show_default=True, help="Of the larger node.")
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--connections", default=2_000, show_default=True, help="In each visit.")
@click.option("--rounds", default=31, show_default=True)
@click.option("--data-paths", default=",".join(DATA_PATHS), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(
    *, services: int, endpoints: int, connections: int, rounds: int, data_paths: str, date: str
) -> None:
    """Measure connections per second through the first and the last Service."""
    rows = measure_all(
        services,
        endpoints,
        data_paths.split(","),
        rounds=rounds,
        connections=connections,
    )
    parameters = {
        "services": services,
        "endpoints": endpoints,
        "connections": connections,
        "rounds": rounds,
    }
    record("connections", date=date, parameters=parameters, results=rows)


def measure_all(
    services: int,
    endpoints: int,
    data_paths: Sequence[str],
    *,
    rounds: int,
    connections: int,
    among: Callable[[list[Way]], list[Way]] = list,
) -> list[Row]:
    """Build the nodes of these data paths, and measure those of all ways that `among` returns."""
    with contextlib.ExitStack() as closing:
        scratch = closing.enter_context(tempfile.TemporaryDirectory(prefix="kproxy-bench-"))
        program = compiled("connect.c", Path(scratch))
        bare = closing.enter_context(built_stage())
        one, many = Cluster(1, endpoints), Cluster(services, endpoints)
        ways = [Way(*_FOREIGN, bare, bare.client, _NOBODYS, ENDPOINT_PORT)]
        for data_path in data_paths:
            click.echo(f"connections: {data_path}", err=True)
            small = closing.enter_context(programmed(one, data_path))
            large = closing.enter_context(programmed(many, data_path))
            ways += _ways(data_path, (small, one), (large, many))
        ways = among(ways)
        for stage in {id(way.stage): way.stage for way in ways}.values():
            closing.enter_context(_serving(stage, program))
        return measure(ways, program, rounds=rounds, connections=connections)


def _ways(data_path: str, one: tuple[Stage, Cluster], many: tuple[Stage, Cluster]) -> Iterator[Way]:
    """Return every way through the two nodes of a data path."""
    foreign = ", ".join(_FOREIGN)
    to_cluster_ip = f"{data_path}, clusterIP, 1 Service"
    to_node_port = f"{data_path}, NodePort, 1 Service"
    reference = f"{IPTABLES[0]}, NodePort, 1 Service"
    for which, (node, cluster) in {"1 Service": one, "many": many}.items():
        way = functools.partial(Way, data_path)
        straight = way(
            f"straight, {which} on the node",
            node,
            node.client,
            cluster.endpoint_slice(0)["endpoints"][0]["addresses"][0],
            ENDPOINT_PORT,
            (foreign,),
        )
        yield way(
            f"no Service, {which} on the node",
            *(node, node.client, _NOBODYS, ENDPOINT_PORT, (foreign,)),
        )
        yield straight
        last = cluster.last_with_node_port
        numbers = {which: 0} if last == 0 else {f"first of {which}": 0, f"last of {which}": last}
        for name, number in numbers.items():
            yield way(
                f"clusterIP, {name}",
                *(node, node.client, cluster.cluster_ip(number), SERVICE_PORT),
                (straight.name, to_cluster_ip),
            )
        yield way(
            f"NodePort, {name}",
            *(node, node.outside, NODE_ADDRESS, cluster.node_port(last)),
            (reference, to_node_port),
        )


def measure(ways: Sequence[Way], program: Path, *, rounds: int, connections: int) -> list[Row]:
    """Return a row for each way: its rate, and the ratios to its baselines."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    chance = random.Random(3)
    # No two visits in a row from the same ports: ipvs remembers connections that were reset.
    ports = itertools.cycle(range(_FIRST_PORT, _LAST_PORT - connections, connections))
    for way in ways:
        _visit(way, program, connections, next(ports))  # warms caches up, not counted
    for _ in range(rounds):
        for way in chance.sample(ways, len(ways)):
            rates[way.name].append(_visit(way, program, connections, next(ports)))
    return [
        {
            "data_path": way.data_path,
            "path": way.path,
            "per_second": spread(rates[way.name], 0),
            "ratios": {
                baseline: ratio(rates[way.name], rates[baseline])
                for baseline in way.baselines
                if baseline in rates and baseline != way.name
            },
        }
        for way in ways
    ]


@contextlib.contextmanager
def _serving(stage: Stage, program: Path) -> Iterator[None]:
    """Accept connections at every endpoint."""
    with stage.far.entered():
        command = [*UNDISTURBED, str(program), "serve", str(ENDPOINT_PORT)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    try:
        yield
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _visit(way: Way, program: Path, connections: int, first_port: int) -> float:
    """Open that many connections from ports from the first one on; return the rate."""
    with way.stage.node.entered():
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
    command = [*UNDISTURBED, str(program), "run", way.address, str(way.port)]
    command += [str(connections), str(first_port)]
    if way.client is way.stage.client:
        command = way.stage.place.inside(*command)
    with way.client.entered():
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_WITHIN_S
        )
    return connections / float(done.stdout)


if __name__ == "__main__":
    main()
