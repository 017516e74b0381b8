"""How many TCP connections a second a client opens through a node, and how long a request takes.

- *new connections*: one after the other, as fast as one thread can, closed by a reset.
- *request latency*: each request is a connection over TCP, a byte and its answer, or a datagram
  over UDP and its answer, from a port of its own. They begin at an even pace and are timed from
  when they were due, so that a slow one delays the figures of none (no coordinated omission).

Over TCP, clients call Services from the whole of the cluster in turn: a list of rules finds one
sooner than another. Over UDP, and over IPv6, it is one Service beside those of the cluster, which
have TCP and IPv4 alone. Where nobody translates, they call all endpoints of these Services in turn.
The client alone is measured as "plain routing", where nobody translates or tracks: who is nearly as
fast is limited by the client and the server, which is said.

Traps: source ports are taken one after the other and each once in a visit, and connections are
closed by a reset, so there is no TIME_WAIT and no collision; connection tracking is emptied before
each visit, so it is never full, and no port is still known there. A data path with a tracking of
its own still knows those of UDP: requests take other ports in each visit.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from bench.bed import Bed
from bench.load.quantiles import quantiles
from bench.load.talk import PORTS
from bench.load.tracking import forget, refused
from bench.node import Node
from bench.noise import ratios
from bench.parameters import Parameters, Size
from bench.part import (
    Finding,
    Found,
    Limited,
    Measure,
    Part,
    Rounds,
    Spread,
    Visit,
    circumstances,
    largest,
)
from bench.peers.routing import PlainRouting
from bench.traffic import Kind, Way, ends, targets
from kproxy.core.addresses import Family

OPENED = Measure("new connections", "1/s", "more")
LATENCY = Measure("request latency", "ms", "less")
UNANSWERED = Measure("requests without an answer", "%", "less")
_NEARLY = 0.9  # of what the client opens where nothing hinders it


class _Calls(Part):
    """What clients find that call Services."""

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Serve at all endpoints, and let each way be called."""
        stages = [node.stage for node in bed.nodes]
        everywhere = [where for stage in stages for where in (stage.far, stage.client)]
        with bed.talk.serving(*everywhere):
            yield [
                visit
                for node in bed.nodes
                for way in bed.ways
                for visit in self._visits(bed, node, way)
            ]

    @staticmethod
    @abstractmethod
    def _visits(bed: Bed, node: Node, way: Way) -> Iterator[Visit]:
        """Return the visits of a way through a node."""


class Connections(_Calls):
    """New connections, one after the other."""

    name = "connections"
    about = "new TCP connections a second, by one client without a pause"
    measures = (OPENED,)

    def judged(self, found: Sequence[Rounds]) -> Iterator[tuple[Visit, Limited]]:
        """Say of whom the client, or who answers it, was the limit."""
        plain = [each for each in found if each.visit.who == PlainRouting.name]
        for each, alone in itertools.product(found, plain):
            if each is alone or each.visit.where != alone.visit.where:
                continue
            parts = ratios(each.values, alone.values)
            if parts and (share := statistics.median(parts)) >= _NEARLY:
                text = f"the client was the limit: it opens {share:.0%} of what it does unhindered"
                yield each.visit, Limited(text)

    @staticmethod
    def _visits(bed: Bed, node: Node, way: Way) -> Iterator[Visit]:
        called = targets(
            way,
            Kind.CONNECTIONS,
            bed.cluster,
            translated=node.peer.translates,
            family=Family.IPV4,
        )

        def go() -> Iterable[Finding]:
            forget(node.stage.node)
            before = refused(node.stage.node)
            opened = bed.talk.connect(
                node.stage, ends(way, node.stage).sender, called, seconds=bed.parameters.seconds
            )
            yield Found(OPENED, opened.connections / opened.seconds)
            tried = opened.connections + opened.failed.total()
            for why, times in opened.failed.items():
                yield Limited(f"{times} of {tried} connections failed: {why}")
            if tried == PORTS:
                yield Limited("a visit ended early, as all source ports were used")
            if full := refused(node.stage.node) - before:
                yield Limited(f"connection tracking refused {full} packets")

        yield Visit(node.peer.name, circumstances(bed.size, path=way.value, protocol="TCP"), go)


class Requests(_Calls):
    """How long a request takes that is a connection, or a flow, of its own."""

    name = "requests"
    about = "latency of TCP and UDP requests at an even pace, each a flow: p50, p99, p99.9"
    measures = (LATENCY, UNANSWERED)

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return one: `connections` tells how it grows."""
        return largest(parameters)

    @staticmethod
    def _visits(bed: Bed, node: Node, way: Way) -> Iterator[Visit]:
        for kind in (Kind.CONNECTIONS, Kind.PACKETS):
            for family in bed.families:
                where = circumstances(
                    bed.size,
                    path=way.value,
                    protocol=kind.protocol,
                    family=family.value,
                    requests_per_s=bed.parameters.requests_per_s,
                )
                asks = functools.partial(_asked, bed, node, way, kind, family)
                yield Visit(node.peer.name, where, asks)


def _asked(bed: Bed, node: Node, way: Way, kind: Kind, family: Family) -> Iterator[Finding]:
    """Ask along a way; return what became of it."""
    per_s, requests = bed.parameters.requests_per_s, bed.parameters.requests
    forget(node.stage.node)
    before = refused(node.stage.node)
    asked = bed.talk.ask(
        node.stage,
        ends(way, node.stage).sender,
        targets(way, kind, bed.cluster, translated=node.peer.translates, family=family),
        per_s=per_s,
        seconds=requests / per_s,
        protocol=kind.protocol,
        first_port=bed.first_port(requests),
    )
    total = len(asked.answered_s) + asked.unanswered.total()
    yield Found(UNANSWERED, 100 * asked.unanswered.total() / total)
    for why, times in asked.unanswered.items():
        yield Limited(f"no answer to {times} of {total} requests: {why}")
    if full := refused(node.stage.node) - before:
        yield Limited(f"connection tracking refused {full} packets")
    if asked.answered_s:
        yield Spread(LATENCY, quantiles([1000 * each for each in asked.answered_s]))
