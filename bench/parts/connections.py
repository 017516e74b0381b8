"""How many TCP connections a second a client opens through a node, and how long a request takes.

- *new connections*: one after the other, as fast as one thread can, closed by a reset.
- *request latency*: each request is a connection over TCP, a byte and its answer, or a datagram
  over UDP and its answer, from a port of its own. They begin at an even pace and are timed from
  when they were due, so that a slow one delays the figures of none (no coordinated omission).

Over TCP, clients call Services from the whole of the cluster in turn: a list of rules finds one
sooner than another. Over UDP it is one Service beside those of the cluster, which have TCP alone.
The client alone is measured as "plain routing", where nobody translates or tracks.

Traps: source ports are taken one after the other and each once in a visit, and connections are
closed by a reset, so there is no TIME_WAIT and no collision; connection tracking is emptied before
each visit, so it is never full, and no port is still known there. A data path with a tracking of
its own still knows those of UDP: requests take other ports in each visit.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from bench.bed import Bed
from bench.load.quantiles import quantiles
from bench.load.talk import FIRST_PORT, LAST_PORT
from bench.load.tracking import forget, refused
from bench.node import Node
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Limited, Measure, Part, Spread, Visit, circumstances, largest
from bench.traffic import Kind, Way, ends, many_targets, target

OPENED = Measure("new connections", "1/s", "more")
LATENCY = Measure("request latency", "ms", "less")
UNANSWERED = Measure("requests without an answer", "%", "less")


class _Calls(Part):
    """What clients find that call Services."""

    protocols: Sequence[str] = ("TCP",)

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Serve at all endpoints, and let each way be called."""
        stages = [node.stage for node in bed.nodes]
        everywhere = [where for stage in stages for where in (stage.far, stage.client)]
        with bed.talk.serving(*everywhere):
            yield [
                self._visit(bed, node, way, protocol)
                for node in bed.nodes
                for way in bed.ways
                for protocol in self.protocols
            ]

    @staticmethod
    @abstractmethod
    def _visit(bed: Bed, node: Node, way: Way, protocol: str) -> Visit:
        """Return the visit of a way through a node."""


class Connections(_Calls):
    """New connections, one after the other."""

    name = "connections"
    about = "new TCP connections a second, by one client without a pause"
    measures = (OPENED,)

    @staticmethod
    def _visit(bed: Bed, node: Node, way: Way, protocol: str) -> Visit:
        targets = many_targets(way, bed.cluster, translated=node.peer.translates)

        def go() -> Iterable[Finding]:
            forget(node.stage.node)
            before = refused(node.stage.node)
            opened = bed.talk.connect(
                node.stage, ends(way, node.stage).sender, targets, seconds=bed.parameters.seconds
            )
            yield Found(OPENED, opened.connections / opened.seconds)
            if opened.connections == LAST_PORT - FIRST_PORT + 1:
                yield Limited("a visit ended early, as all source ports were used")
            if full := refused(node.stage.node) - before:
                yield Limited(f"connection tracking refused {full} packets")

        return Visit(node.peer.name, _where(bed, way, protocol), go)


class Requests(_Calls):
    """How long a request takes that is a connection, or a flow, of its own."""

    name = "requests"
    about = "latency of TCP and UDP requests at an even pace, each a flow: p50, p99, p99.9"
    measures = (LATENCY, UNANSWERED)
    protocols = ("TCP", "UDP")

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return one: `connections` tells how it grows."""
        return largest(parameters)

    @staticmethod
    def _visit(bed: Bed, node: Node, way: Way, protocol: str) -> Visit:
        targets = many_targets(way, bed.cluster, translated=node.peer.translates)
        if protocol == "UDP":
            targets = [target(way, Kind.PACKETS, translated=node.peer.translates)]
        per_s, seconds = bed.parameters.requests_per_s, bed.parameters.seconds

        def go() -> Iterable[Finding]:
            forget(node.stage.node)
            asked = bed.talk.ask(
                node.stage,
                ends(way, node.stage).sender,
                targets,
                per_s=per_s,
                seconds=seconds,
                protocol=protocol,
                first_port=bed.first_port(int(per_s * seconds)),
            )
            total = len(asked.answered_s) + sum(asked.unanswered.values())
            yield Found(UNANSWERED, 100 * sum(asked.unanswered.values()) / total)
            for why, times in asked.unanswered.items():
                yield Limited(f"no answer to {times} of {total} requests: {why}")
            if asked.answered_s:
                yield Spread(LATENCY, quantiles([1000 * each for each in asked.answered_s]))

        return Visit(node.peer.name, _where(bed, way, protocol) | {"requests_per_s": per_s}, go)


def _where(bed: Bed, way: Way, protocol: str) -> dict[str, str | int | float]:
    return circumstances(bed.size, path=way.value, protocol=protocol)
