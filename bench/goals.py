"""What kproxy shall reach, and what a run says of it: the summary of README.md. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import wording
from bench.comparison import reference
from bench.model import Figure, Results, Rounds, Value
from bench.noise import ratios, spread

SERVICES, ENDPOINTS = 10_000, 10  # of all goals, unless they say otherwise
_CLUSTER_IP = "clusterIP, from a pod"
_REMOTE = "NodePort, from outside, to another node's pod"
_LOCAL = "NodePort, from outside, to a pod of the node"
_FOREIGN = "no Service's, from a pod"
_ROUTING, _STRAIGHT = "plain routing", "straight to the endpoint"
_LEGACY, _NFT, _IPVS, _EBPF = (
    f"kproxy {each}" for each in ("iptables-legacy", "iptables-nft", "ipvs", "ebpf")
)

_Figures = Mapping[Figure, Rounds]


@dataclass(frozen=True, slots=True)
class Place:
    """Which figure a goal is about, or is compared with."""

    part: str
    measure: str
    who: str
    path: str = ""
    services: int = SERVICES

    def find(self, figures: _Figures) -> Figure | None:
        """Return the figure, if it was measured; over IPv4, where there are both families."""
        wanted: dict[str, Value] = {
            "services": self.services,
            "endpoints": ENDPOINTS,
            "family": "IPv4",
        }
        if self.path:
            wanted["path"] = self.path
        for figure in figures:
            named = (figure.part, figure.measure, figure.who)
            where = {"family": "IPv4", **dict(figure.where)}
            if named == (self.part, self.measure, self.who) and wanted.items() <= where.items():
                return figure
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure shall be: at most a value, or at least a part of another one."""

    what: str
    place: Place
    goal: float
    unit: str = "1"
    against: Place | None = None

    @property
    def wanted(self) -> str:
        """The goal in words."""
        if self.against is None:
            return f"≤ {wording.number(self.goal)} {self.unit}"
        return f"≥ {self.goal:.2f} of {_named(self.place, self.against)}"


class Mark(enum.Enum):
    """What the median of the rounds says of a goal; nothing where its interval holds the goal."""

    MET = "met"
    MISSED = "**missed**"
    OPEN = "cannot be said"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run says of a goal. `reached` is the value, or the ratio that was wanted."""

    goal: Goal
    reached: float
    low: float
    high: float
    rounds: int

    @property
    def mark(self) -> Mark:
        """Whether the goal was reached, beyond the noise of the rounds."""
        if self.low < self.goal.goal < self.high:
            return Mark.OPEN
        better = self.reached - self.goal.goal
        if self.goal.against is None:
            better = -better
        return Mark.MET if better >= 0 else Mark.MISSED


def _control(what: str, measure: str, unit: str, goals: Mapping[str, float]) -> list[Goal]:
    return [Goal(what, Place("control", measure, who), goal, unit) for who, goal in goals.items()]


def _ratio(what: str, place: Place, goal: float, against: str, services: int = 0) -> Goal:
    other = Place(place.part, place.measure, against, place.path, services or place.services)
    return Goal(what, place, goal, against=other)


def _connections(who: str, path: str, services: int = SERVICES) -> Place:
    return Place("connections", "new connections", who, path, services)


_ALONE = "change to packets following, alone"
_IN_STORM = "change to packets following, at 100 changes/s"
_EVERYONE = (_LEGACY, _NFT, _IPVS, _EBPF)

GOALS = (
    *_control(
        "start to the last Service answering",
        "start to the last Service answering",
        "s",
        {_EBPF: 2},
    ),
    *_control(
        "a change, p50",
        f"{_ALONE}, p50",
        "ms",
        {_EBPF: 10, _IPVS: 30, _NFT: 300, _LEGACY: 500},
    ),
    *_control("a change, p99", f"{_ALONE}, p99", "ms", {_EBPF: 50}),
    *_control("a change at 100/s, p99", f"{_IN_STORM}, p99", "ms", {_EBPF: 50}),
    *_control(
        "CPU for 1,000 changes",
        "CPU for 1,000 changes",
        "s",
        dict.fromkeys(_EVERYONE, 1),
    ),
    *_control("memory", "memory", "MB", dict.fromkeys(_EVERYONE, 150)),
    *_control(
        "memory at its peak",
        "memory at its peak, with children",
        "MB",
        dict.fromkeys(_EVERYONE, 300),
    ),
    _ratio("new connections, clusterIP", _connections(_EBPF, _CLUSTER_IP), 0.95, _STRAIGHT),
    _ratio("the same, 1 Service", _connections(_EBPF, _CLUSTER_IP, 1), 0.95, _STRAIGHT),
    _ratio("new connections, clusterIP", _connections(_LEGACY, _CLUSTER_IP), 0.95, _LEGACY, 1),
    _ratio("new connections, clusterIP", _connections(_NFT, _CLUSTER_IP), 0.95, _NFT, 1),
    _ratio("new connections, NodePort", _connections(_EBPF, _REMOTE), 1.0, _LEGACY, 1),
    _ratio(
        "packets, NodePort, remote endpoint",
        Place("packets", "packets forwarded", _EBPF, _REMOTE),
        1.0,
        _ROUTING,
    ),
    _ratio(
        "packets of no Service",
        Place("packets", "packets forwarded", _EBPF, _FOREIGN),
        0.95,
        _ROUTING,
    ),
    _ratio("new connections of no Service", _connections(_EBPF, _FOREIGN), 0.95, _ROUTING),
    _ratio(
        "bulk TCP, NodePort, local endpoint",
        Place("bulk", "bulk TCP", _EBPF, _LOCAL),
        0.95,
        _ROUTING,
    ),
    Goal("a foreign packet, by test run", Place("programs", "a foreign packet", _EBPF), 40, "ns"),
    Goal("a packet of one flow", Place("programs", "a packet of one flow", _EBPF), 120, "ns"),
    Goal("one of each flow", Place("programs", "a packet of each flow in turn", _EBPF), 180, "ns"),
    Goal("maps before any flow", Place("programs", "maps before any flow", _EBPF), 32e6, "bytes"),
    Goal("maps, of a flow", Place("programs", "maps, of a flow", _EBPF), 400, "bytes"),
)


def answers(results: Results) -> list[Answer | Goal]:
    """Return what a run says of each goal; the goal itself where that was not measured."""
    figures = results.figures()
    return [_answer(goal, figures) or goal for goal in GOALS]


def _answer(goal: Goal, figures: _Figures) -> Answer | None:
    figure = goal.place.find(figures)
    other = goal.against.find(figures) if goal.against else None
    if figure is None or (goal.against and other is None):
        return None
    values = list(figures[figure].values.values())
    if other is not None:
        same_rounds = goal.against is not None and goal.against.services == goal.place.services
        own, its = (
            figures[each].values if same_rounds else _of_the_limit(each, figures)
            for each in (figure, other)
        )
        values = ratios(own, its)
    if not values:
        return None
    found = spread(values)
    return Answer(goal, found.median, found.low, found.high, found.count)


def _of_the_limit(figure: Figure, figures: _Figures) -> Mapping[int, float]:
    """Return a figure as parts of what a node without a proxy did in the same rounds, if one did.

    Sizes of cluster are measured one after the other: the machine may be slower at one of them.
    """
    own, limit = figures[figure].values, reference(figure, figures)
    its = figures[limit].values if limit else dict.fromkeys(own, 1.0)
    return {number: own[number] / its[number] for number in own.keys() & its.keys()}


def lines(results: Results) -> Iterator[str]:
    """Return the summary as Markdown."""
    run = results.run
    said = answers(results)
    known = Counter(each.mark for each in said if isinstance(each, Answer))
    yield (
        f"Goals at {SERVICES:,} Services with {ENDPOINTS} endpoints each, and what the last full "
        f"run says of them: {known[Mark.MET]} met, {known[Mark.MISSED]} missed; of "
        f"{known[Mark.OPEN]} it cannot be said, as the interval of the median, in brackets, holds "
        f"the goal; {len(said) - known.total()} not measured. "
        "What no data path has yet (XDP, mode nftables) is left out. Sizes are measured one after "
        "the other: what is compared over sizes is compared with a node without a proxy at each."
    )
    yield ""
    yield "| what | who | goal | measured | |"
    yield "|---|---|---|---|---|"
    for each in said:
        yield f"| {' | '.join(_row(each))} |"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield (
        f"Measured on {run.started:%Y-%m-%d} at {run.commit}{'+' if run.dirty else ''}, "
        f"{'' if results.complete else 'interrupted, '}Linux {run.kernel}, "
        f"{wording.machine(run.machine)}; {versions}."
    )
    yield ""


def _row(each: Answer | Goal) -> tuple[str, str, str, str, str]:
    if isinstance(each, Goal):
        return each.what, each.place.who, each.wanted, "not measured", ""
    goal = each.goal
    interval = f"{wording.number(each.low)} to {wording.number(each.high)}"
    reached = f"{wording.number(each.reached)} ({interval if each.rounds > 1 else 'one round'})"
    return goal.what, goal.place.who, goal.wanted, reached, each.mark.value


def _named(place: Place, other: Place) -> str:
    """Return what a figure is compared with, as far as it differs from it."""
    size = f"{other.services} Service" if other.services != place.services else ""
    who = other.who if other.who != place.who else ""
    return ", ".join(filter(None, (who, size)))
