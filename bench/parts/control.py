"""What a proxy costs its node, and how soon packets follow the API.

Each visit starts a proxy on a fresh node, and no other one runs meanwhile. The API server is a
process of its own, and its objects are the same for all.

- The start: from that of the process until clients reach the first, the middle and the last
  Service; the CPU of that; the memory then, and at its peak together with all children, pages that
  several share counted once (PSS).
- Changes, which the same process follows next: from the moment when the API server has stored a
  moved endpoint until a client's packets reach it. First alone, each when the proxy has been idle
  for longer than it waits between two writes; then among 100 a second, whose CPU is counted. When
  each of these moves is settled beforehand, at random, and nothing waits for those before: a slow
  proxy is asked as often as a fast one, and at all moments of its pauses (no coordinated omission).
  The Services that are watched have one endpoint each: among ten a client would meet the new one by
  luck.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.answers import Calling, answering
from bench.bed import Bed
from bench.cluster import spare_address
from bench.load.quantiles import quantiles
from bench.node import CHECKED_EVERY_S, READY_WITHIN_S, Node
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
_STORM_S = 3
_IDLE_S = (1.1, 1.9)  # before a change; kube-proxy waits for 1 s between two writes
_SETTLED_S = 1.0
_MOST_WATCHED = 75  # Services, of which a p99 can be told
_SEED = 5


class Control(Part):
    """What is measured of a proxy that is started for it, on a node of its own."""

    name = "control"
    about = "a proxy's start, how soon packets follow a change, alone and at 100/s; CPU, memory"
    measures = (STARTED, START_CPU, STEADY, PEAK, ALONE, IN_STORM, STORM_CPU)
    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return those that are a cluster."""
        return [size for size in parameters.sizes if size.services >= _FEWEST_SERVICES]

    def repeats(self, parameters: Parameters) -> int:
        """Return how often each proxy is started."""
        return parameters.slow_repeats

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Measure each proxy in turn."""
        chance = random.Random(_SEED)
        yield [_visit(bed, peer, chance) for peer in bed.peers if peer.translates]


def _visit(bed: Bed, peer: Peer, chance: random.Random) -> Visit:
    def go() -> Iterable[Finding]:
        with bed.node(peer) as node, answering(node.stage), node.stage.place.joined():
            agent = yield from _started(node)
            with _watched(bed, node, chance) as watched:
                yield from _followed(bed, node, agent, watched, chance)

    return Visit(peer.name, circumstances(bed.size), go)


def _started(node: Node) -> Generator[Finding, None, Agent]:
    began_s = time.monotonic()
    agent = node.start()
    assert agent is not None, "who translates has a process"
    with agent.watched():
        node.wait_until_ready()
        yield Found(STARTED, time.monotonic() - began_s)
        yield Found(START_CPU, agent.cpu_s())
        time.sleep(_SETTLED_S)
    memory = agent.memory()
    yield Found(STEADY, memory.steady_mb)
    yield Found(PEAK, memory.peak_with_children_mb)
    return agent


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """The only endpoint of a Service moves, so long after all began."""

    due_s: float
    number: int
    moved: int


def _followed(
    bed: Bed, node: Node, agent: Agent, watched: Sequence[int], chance: random.Random
) -> Iterator[Finding]:
    alone = []
    for moved in bed.moves(bed.parameters.changes):
        move = Move(chance.uniform(*_IDLE_S), chance.choice(watched), moved)
        alone += delays_ms(bed, node, [move])
    yield Spread(ALONE, quantiles(alone))
    before_s = agent.cpu_s()
    others = bed.moves(_PER_S * _STORM_S - len(watched))
    per_s = len(others) // _STORM_S
    bed.api.begin_storm(others, per_s=per_s, among=bed.size.services // 2)
    moves = bed.moves(len(watched))
    in_storm = [
        Move(chance.uniform(0, _STORM_S), number, moved)
        for number, moved in zip(watched, moves, strict=True)
    ]
    delays = delays_ms(bed, node, in_storm)
    reached_per_s = bed.api.end_storm()
    time.sleep(_SETTLED_S)
    yield Spread(IN_STORM, quantiles(delays))
    if reached_per_s < _NEARLY * per_s:
        made_per_s = reached_per_s + len(watched) / _STORM_S
        yield Limited(f"the API server made only {made_per_s:.0f} changes a second")
    yield Found(STORM_CPU, 1000 * (agent.cpu_s() - before_s) / (_PER_S * _STORM_S))


@contextlib.contextmanager
def _watched(bed: Bed, node: Node, chance: random.Random) -> Iterator[Sequence[int]]:
    """Leave some Services of the cluster's second half one endpoint each for a while."""
    second_half = range(bed.size.services // 2, bed.size.services)
    numbers = chance.sample(second_half, min(_MOST_WATCHED, len(second_half)))
    moves = zip(numbers, bed.moves(len(numbers)), strict=True)
    try:
        delays_ms(bed, node, [Move(0.0, *move) for move in moves])
        yield numbers
    finally:
        bed.api.put(*map(bed.cluster.endpoint_slice, numbers))


def delays_ms(bed: Bed, node: Node, moves: Iterable[Move]) -> list[float]:
    """Make each move when it is due, whatever became of those before; each is of another Service.

    Returns how long packets took to follow, from when the move was stored, in any order.
    """
    left = deque(sorted(moves))
    began_s = time.monotonic()
    deadline_s = began_s + left[-1].due_s + READY_WITHIN_S
    stored_s = dict[str, float]()
    delays = []
    with Calling(node.stage) as calling:
        while left or calling.waits:
            node.check(deadline_s, f"packets do not follow {len(stored_s)} changes")
            while left and began_s + left[0].due_s <= time.monotonic():
                move = left.popleft()
                cluster_ip = bed.cluster.cluster_ip(move.number)
                moved = bed.cluster.endpoint_slice(move.number, move.moved, alone=True)
                stored_s[cluster_ip] = bed.api.put(moved)
                calling.expect(cluster_ip, spare_address(move.moved))
            due_s = began_s + left[0].due_s if left else deadline_s
            until_s = min(due_s, time.monotonic() + CHECKED_EVERY_S)
            for answer in calling.answers(until_s=until_s):
                delays.append(1000 * (answer.heard_s - stored_s.pop(answer.cluster_ip)))
    return delays
