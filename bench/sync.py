"""How fast the kernel follows, and what the agent costs, at several sizes of cluster.

The proof is a packet: a client keeps connecting, and each answer names the endpoint. Every run has
its own namespaces and the real `kproxy run` with its default periods.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import socketserver
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from bench.cluster import (
    ENDPOINT_PORT,
    SERVICE_PORT,
    SERVICES_PER_FILE,
    Cluster,
    spare_address,
)
from bench.record import Row, record, spread
from bench.stage import Agent, Stage, build_stage, running_agent

_READY_WITHIN_S = 300.0
_FOLLOWED_WITHIN_S = 60.0
_BETWEEN_PROBES_S = 0.0005
_BETWEEN_CHANGES_S = (1.2, 1.8)  # more than minSyncPeriod, so that no change waits for the last
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@click.command()
@click.option("--sizes", default="100,1000,10000", show_default=True, help="Numbers of Services.")
@click.option("--endpoints", default=10, show_default=True, help="Of each Service.")
@click.option("--changes", default=15, show_default=True)
@click.option("--variants", default="legacy,nft", show_default=True)
@click.option("--date", required=True, help="Written into the result.")
def main(sizes: str, endpoints: int, changes: int, variants: str, date: str) -> None:
    """Measure first sync, the delay of one change, CPU and memory."""
    rows = []
    for variant in variants.split(","):
        for size in map(int, sizes.split(",")):
            click.echo(f"sync: {variant}, {size} Services", err=True)
            rows.append(measure(Cluster(size, endpoints), variant, changes))
    parameters = {
        "endpoints": endpoints,
        "changes": changes,
        "services_per_file": SERVICES_PER_FILE,
        "minSyncPeriod": "1s",
    }
    record("sync", date=date, parameters=parameters, results=rows)


def measure(cluster: Cluster, variant: str, changes: int) -> Row:
    """Start an agent on a cluster, move an endpoint several times, and return what that cost."""
    stage = build_stage()
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch, _answering(stage):
        manifests = Path(scratch) / "manifests"
        cluster.write(manifests)
        began_s = time.monotonic()
        with running_agent(stage, manifests, variant) as agent:
            _wait_for_every_service(cluster, stage, agent)
            first_sync_s = time.monotonic() - began_s
            first_cpu_s = agent.cpu_s()
            delays_ms, cpu_s = _change(cluster, stage, agent, manifests=manifests, times=changes)
            memory = agent.memory()
    return {
        "variant": variant,
        "services": cluster.services,
        "first_sync_s": round(first_sync_s, 2),
        "first_sync_cpu_s": round(first_cpu_s, 2),
        "change_ms": spread(delays_ms, 1),
        "cpu_per_change_ms": round(1000 * cpu_s / changes, 1),
        **dataclasses.asdict(memory),
    }


def _wait_for_every_service(cluster: Cluster, stage: Stage, agent: Agent) -> None:
    for number in (0, cluster.services // 2, cluster.services - 1):
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while _who_answers(stage, cluster.cluster_ip(number)) is None:
            agent.check()
            if time.monotonic() > deadline_s:
                raise TimeoutError("the first sync took too long")
            time.sleep(0.01)


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
        while _who_answers(stage, cluster.cluster_ip(number)) != expected:
            agent.check()
            if time.monotonic() - began_s > _FOLLOWED_WITHIN_S:
                raise TimeoutError(f"packets did not follow change {moved}")
            time.sleep(_BETWEEN_PROBES_S)
        delays_ms.append(1000 * (time.monotonic() - written_s))
        time.sleep(chance.uniform(*_BETWEEN_CHANGES_S))
    return delays_ms, agent.cpu_s() - before_s


def _who_answers(stage: Stage, cluster_ip: str) -> str | None:
    """Connect to a clusterIP; return the address of the endpoint, None if there was no answer."""
    with stage.client.entered():
        client = socket.socket()
    with client:
        client.settimeout(0.2)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        try:
            client.connect((cluster_ip, SERVICE_PORT))
            return client.recv(64).decode() or None
        except OSError:
            return None


class _TellAddress(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(self.request.getsockname()[0].encode())
            self.request.recv(1)  # the client resets: no TIME_WAIT stays here


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 1024
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def _answering(stage: Stage) -> Iterator[None]:
    """Let every endpoint answer with its own address."""
    with stage.far.entered():
        server = _Server(("0.0.0.0", ENDPOINT_PORT), _TellAddress)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main()
