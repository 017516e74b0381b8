"""What one TCP stream carries through a node, by iperf3.

Clients and servers are as the host has them, so large segments pass unsegmented (GSO): that is the
kernel's way for local traffic, and hides what a packet costs. See `packets` for that. The sender's
core forwards, too: where either end kept its core busy, that is said.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence

from bench.bed import Bed
from bench.load.talk import UNDISTURBED
from bench.node import Node
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Limited, Measure, Part, Visit, circumstances, largest
from bench.traffic import BULK_PORT, Kind, Way, ends, target
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S, until

CARRIED = Measure("bulk TCP", "Mbit/s", "more")
_BUSY_PERCENT = 90
_BYTES_A_SECOND = 10**9  # iperf3 itself knows whole seconds alone


class Bulk(Part):
    """One stream."""

    name = "bulk"
    about = "Mbit/s of one TCP stream, by iperf3"
    measures = (CARRIED,)
    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return one: a packet of an open connection is looked up among connections."""
        return largest(parameters)

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Serve behind all nodes and on them."""
        with contextlib.ExitStack() as closing:
            for node in bed.nodes:
                for receiver in (node.stage.far, node.stage.client):
                    closing.enter_context(_serving(receiver))
            yield [_visit(bed, node, way) for node in bed.nodes for way in bed.ways]


def _visit(bed: Bed, node: Node, way: Way) -> Visit:
    there = target(way, Kind.BULK, translated=node.peer.translates)
    size = int(bed.parameters.seconds * _BYTES_A_SECOND)

    def go() -> Iterable[Finding]:
        command = ["iperf3", "-J", "-c", there.address, "-p", str(there.port), "-n", str(size)]
        sender = ends(way, node.stage).sender
        if sender is node.stage.client:
            command = node.stage.place.inside(*command)
        with sender.entered():
            done = subprocess.run(
                [*UNDISTURBED, *command],
                check=True,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
            )
        end = json.loads(done.stdout)["end"]
        yield Found(CARRIED, end["sum_received"]["bits_per_second"] / 1e6)
        for side, who in (("host_total", "sender"), ("remote_total", "receiver")):
            if end["cpu_utilization_percent"][side] > _BUSY_PERCENT:
                yield Limited(f"the core of the {who} was the limit: iperf3 kept it busy")

    return Visit(node.peer.name, circumstances(bed.size, path=way.value, protocol="TCP"), go)


@contextlib.contextmanager
def _serving(where: Namespace) -> Iterator[None]:
    command = [*UNDISTURBED, "iperf3", "-s", "-p", str(BULK_PORT)]
    with (
        where.entered(),
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        until(lambda: _listens(where), within_s=LONGEST_S, what="iperf3 listens")
        try:
            yield
        finally:
            server.kill()


def _listens(where: Namespace) -> bool:
    with where.entered():
        said = subprocess.run(["ss", "-Htln"], check=True, capture_output=True, text=True)
    return str(BULK_PORT) in said.stdout
