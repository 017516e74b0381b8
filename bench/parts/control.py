"""What a proxy costs its node, and how soon packets follow the API.

Each visit starts a proxy on a fresh node, and no other one runs meanwhile. The API server is a
process of its own, and its objects are the same for all.

- *start*: from the start of the process until clients reach the first, the middle and the last
  Service; the CPU of that; the memory then, and at its peak together with all children, pages that
  several share counted once (PSS).
- *changes*: from the moment when the API server has stored a moved endpoint until a client's
  packets reach it. First alone, each some time after the last at random, so that what a proxy
  pauses after a write shows; then while 100 others a second move, whose CPU is counted. The
  Services that are watched have one endpoint each: among ten a client would meet the new one by
  luck.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from bench.answers import answering
from bench.bed import Bed
from bench.cluster import spare_address
from bench.load.quantiles import quantiles
from bench.node import Node
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Limited, Measure, Part, Spread, Visit, circumstances
from bench.peers.peer import Peer
from bench.stage import Agent

STARTED = Measure("start to the last Service answering", "s", "less")
START_CPU = Measure("CPU of the start", "s", "less")
STEADY = Measure("memory", "MB", "less")
PEAK = Measure("memory at its peak, with children", "MB", "less")
ALONE = Measure("change to packets following, alone", "ms", "less")
IN_STORM = Measure("change to packets following, at 100 changes/s", "ms", "less")
STORM_CPU = Measure("CPU for 1,000 changes", "s", "less")
_FEWEST_SERVICES = 20  # with less there is no cluster to follow
_PER_S = 100
_NEARLY = 0.9
_STORM_S = 5
_ALONE_S, _IN_STORM_S = (0.2, 1.0), (0.05, 0.2)  # between two changes
_SETTLED_S = 1.0
_MOST_IN_STORM = 200
_WATCHED = 10  # Services
_SEED = 5


class _OfEachStart(Part):
    """What is measured of a proxy that was started for it, on a node of its own."""

    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return those that are a cluster."""
        return [size for size in parameters.sizes if size.services >= _FEWEST_SERVICES]

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Measure each proxy in turn."""
        yield [self._visit(bed, peer) for peer in bed.peers if peer.translates]

    def _visit(self, bed: Bed, peer: Peer) -> Visit:
        def go() -> Iterable[Finding]:
            with bed.node(peer) as node, answering(node.stage), node.stage.place.joined():
                yield from self._measured(bed, node)

        return Visit(peer.name, circumstances(bed.size), go)

    @staticmethod
    @abstractmethod
    def _measured(bed: Bed, node: Node) -> Iterator[Finding]:
        """Start the proxy, and yield what is found."""


class Start(_OfEachStart):
    """The start of a proxy."""

    name = "start"
    about = "a proxy's start until the last Service answers, with its CPU and memory"
    measures = (STARTED, START_CPU, STEADY, PEAK)

    def repeats(self, parameters: Parameters) -> int:
        """Return how many starts there are."""
        return parameters.starts

    @staticmethod
    def _measured(bed: Bed, node: Node) -> Iterator[Finding]:
        began_s = time.monotonic()
        agent = _started(node)
        node.wait_until_ready()
        yield Found(STARTED, time.monotonic() - began_s)
        yield Found(START_CPU, agent.cpu_s())
        time.sleep(_SETTLED_S)
        memory = agent.memory()
        yield Found(STEADY, memory.steady_mb)
        yield Found(PEAK, memory.peak_with_children_mb)


class Changes(_OfEachStart):
    """How soon packets follow changes."""

    name = "changes"
    about = "how soon packets follow a change, alone and at 100 a second, and the CPU of it"
    measures = (ALONE, IN_STORM, STORM_CPU)

    def repeats(self, parameters: Parameters) -> int:
        """Return how many proxies are started to follow changes, one after the other."""
        return parameters.slow_repeats

    @staticmethod
    def _measured(bed: Bed, node: Node) -> Iterator[Finding]:
        agent = _started(node, watched=False)
        node.wait_until_ready()
        time.sleep(_SETTLED_S)
        with _watched(bed, node) as watched:
            yield from _followed(bed, node, agent, watched)


def _followed(bed: Bed, node: Node, agent: Agent, watched: Sequence[int]) -> Iterator[Finding]:
    alone = bed.moves(bed.parameters.changes)
    yield Spread(ALONE, quantiles(list(_delays_ms(bed, node, watched, alone, between_s=_ALONE_S))))
    time.sleep(_SETTLED_S)
    before_s = agent.cpu_s()
    many = bed.moves(_PER_S * _STORM_S)
    bed.api.begin_storm(many, per_s=_PER_S, among=bed.size.services // 2)
    over_s = time.monotonic() + _STORM_S
    some = itertools.takewhile(lambda _: time.monotonic() < over_s, bed.moves(_MOST_IN_STORM))
    in_storm = list(_delays_ms(bed, node, watched, some, between_s=_IN_STORM_S))
    reached_per_s = bed.api.end_storm()
    time.sleep(_SETTLED_S)
    changes = len(many) + len(in_storm)
    yield Spread(IN_STORM, quantiles(in_storm))
    if reached_per_s < _NEARLY * _PER_S:
        yield Limited(f"the API server made only {reached_per_s:.0f} changes a second")
    yield Found(STORM_CPU, 1000 * (agent.cpu_s() - before_s) / changes)


def _started(node: Node, *, watched: bool = True) -> Agent:
    node.start(watched=watched)
    assert node.agent is not None, "who translates has a process"
    return node.agent


@contextlib.contextmanager
def _watched(bed: Bed, node: Node) -> Iterator[Sequence[int]]:
    """Leave some Services of the cluster's second half one endpoint each for a while."""
    second_half = range(bed.size.services // 2, bed.size.services)
    numbers = random.Random(_SEED).sample(second_half, _WATCHED)
    try:
        for number, moved in zip(numbers, bed.moves(_WATCHED), strict=True):
            _move(bed, node, number, moved)
        time.sleep(_SETTLED_S)
        yield numbers
    finally:
        bed.api.put(*map(bed.cluster.endpoint_slice, numbers))


def _delays_ms(
    bed: Bed,
    node: Node,
    watched: Sequence[int],
    moves: Iterable[int],
    *,
    between_s: tuple[float, float],
) -> Iterator[float]:
    """Move the only endpoints of watched Services; return how long packets took to follow."""
    chance = random.Random(_SEED)
    for moved in moves:
        yield 1000 * _move(bed, node, chance.choice(watched), moved)
        time.sleep(chance.uniform(*between_s))


def _move(bed: Bed, node: Node, number: int, moved: int) -> float:
    """Give a Service one endpoint at another address; return how many seconds it took."""
    stored_s = bed.api.put(bed.cluster.endpoint_slice(number, moved, alone=True))
    node.wait_for_answer(number, by=spare_address(moved))
    return time.monotonic() - stored_s
