"""What a node forwards per second: packets that are no Service's, and a stream through a NodePort.

- *foreign packets*: UDP of 64 bytes in 10,000 flows from outside to addresses behind the node, of
  which no Service has one, as far as they arrive there.
- *bulk*: one TCP stream by iperf3 from outside to a pod of the node, through a NodePort; without
  kproxy straight to the pod.

All nodes are visited in every round, in a new order, and what is compared are rates of one round.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from bench.cluster import NODE_ADDRESS, Cluster, node_port_service
from bench.links import details, ip
from bench.programmed import UNDISTURBED, compiled, programmed
from bench.record import Row, ratio, record, spread
from bench.stage import CLIENT, DATA_PATHS, OUTSIDE, Stage, built_stage
from tests.support.net.namespace import Namespace

_BARE = "no kproxy"
_NODE_PORT = 31_000
_IPERF_PORT = 5201
_FOREIGN = "10.191.128.1"  # of the endpoints' range, so it is routed; nobody has it
_FOREIGN_RANGE = "10.191.128.0/24"
_BULK_S = "1"
_WITHIN_S = 60.0
_SOME_S = 0.01


@click.command()
@click.option("--services", default=10_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--flows", default=10_000, show_default=True, help="Of foreign packets.")
@click.option("--seconds", default=0.5, show_default=True, help="Of foreign packets.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--data-paths", default=",".join(DATA_PATHS), show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(
    *,
    services: int,
    endpoints: int,
    flows: int,
    seconds: float,
    rounds: int,
    data_paths: str,
    date: str,
) -> None:
    """Measure both, by each data path and by a node without kproxy."""
    near = node_port_service("near", _NODE_PORT, (CLIENT, _IPERF_PORT))
    with contextlib.ExitStack() as closing:
        scratch = closing.enter_context(tempfile.TemporaryDirectory(prefix="kproxy-bench-"))
        program = compiled("packets.c", Path(scratch))
        nodes = {_BARE: closing.enter_context(built_stage())}
        for data_path in data_paths.split(","):
            click.echo(f"forwarding: {data_path}", err=True)
            node = programmed(Cluster(services, endpoints), data_path, near)
            nodes[data_path] = closing.enter_context(node)
        for node in nodes.values():
            ip(node.far, [f"route add blackhole {_FOREIGN_RANGE}"])
            closing.enter_context(_accepting_bulk(node))

        def foreign(_: str, node: Stage) -> float:
            return _foreign_packets(node, program, flows, seconds)

        def bulk(data_path: str, node: Stage) -> float:
            return _bulk(node, straight=data_path == _BARE)

        rows = [
            *measure("foreign packets/s", foreign, nodes, rounds),
            *measure("NodePort bulk TCP, Mbit/s", bulk, nodes, rounds),
        ]
    parameters = {
        "services": services,
        "endpoints": endpoints,
        "flows": flows,
        "seconds": seconds,
        "rounds": rounds,
    }
    record("forwarding", date=date, parameters=parameters, results=rows)


def measure(
    what: str, visit: Callable[[str, Stage], float], nodes: Mapping[str, Stage], rounds: int
) -> Iterator[Row]:
    """Return a row for each node: the rates of its visits, and their ratio to the bare node's."""
    rates: dict[str, list[float]] = {name: [] for name in nodes}
    chance = random.Random(5)
    for name, node in nodes.items():
        visit(name, node)  # warms caches up, not counted
    for _ in range(rounds):
        for name in chance.sample(list(nodes), len(nodes)):
            rates[name].append(visit(name, nodes[name]))
    for name in nodes:
        yield {
            "what": what,
            "data_path": name,
            "rate": spread(rates[name], 0),
            "ratio_to_no_kproxy": ratio(rates[name], rates[_BARE]),
        }


def _foreign_packets(node: Stage, program: Path, flows: int, seconds: float) -> float:
    """Send from outside as fast as one thread can; return how many a second arrived behind."""
    before = _arrived(node)
    command = [
        *UNDISTURBED,
        program,
        "eth0",
        details(node.node, "outside")["address"],
        OUTSIDE,
        _FOREIGN,
    ]
    said = _run(node.outside, *map(str, (*command, flows, seconds)))
    return (_arrived(node) - before) / float(said)


def _arrived(node: Stage) -> int:
    return int(details(node.far, "eth0")["stats64"]["rx"]["packets"])


def _bulk(node: Stage, *, straight: bool) -> float:
    """Return the Mbit/s of a TCP stream."""
    there, port = (CLIENT, _IPERF_PORT) if straight else (NODE_ADDRESS, _NODE_PORT)
    client = ("iperf3", "-J", "-c", there, "-p", str(port), "-t", _BULK_S)
    said = _run(node.outside, *UNDISTURBED, *client)
    return json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e6


@contextlib.contextmanager
def _accepting_bulk(node: Stage) -> Iterator[None]:
    with node.client.entered():
        server = subprocess.Popen(
            node.place.inside(*UNDISTURBED, "iperf3", "-s", "-p", str(_IPERF_PORT)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        while str(_IPERF_PORT) not in _run(node.client, "ss", "-Htln"):
            time.sleep(_SOME_S)
        yield
    finally:
        server.terminate()
        server.wait()


def _run(namespace: Namespace, *command: str) -> str:
    with namespace.entered():
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_WITHIN_S
        )
    return done.stdout


if __name__ == "__main__":
    main()
