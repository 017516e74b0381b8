"""Runs of the bench that nobody measured: realistic ones, from a seed, for tests alone."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.model import Distribution, End, Limit, Machine, Results, Run, Sample, Value, Writer

MACHINE = Machine(cpu="Made up <Processor> & Co.", cores=2, memory_gb=24)
STARTED = datetime(2026, 11, 29, 10, tzinfo=UTC)
FINISHED = STARTED + timedelta(minutes=31)

# How many of 1,000 packets a second, or of anything else, each one is good for.
SPEED = {
    "plain routing": 1.0,
    "straight to the endpoint": 0.8,
    "kproxy iptables-legacy": 0.66,
    "kproxy iptables-nft": 0.62,
    "kproxy ebpf": 0.93,
    "kube-proxy iptables-legacy": 0.60,
    "kube-proxy nftables": 0.64,
}
PROXIES = tuple(who for who in SPEED if "proxy" in who)
SIZES = (100, 1_000, 10_000)
PATHS = ("clusterIP, from a pod", "NodePort, remote endpoint", "NodePort, local endpoint")
SCENARIOS = ("rolling restart", "swap of the proxy", "kill -9", "tables flushed")
_NOISE = 0.02  # of a round, relative
_WEATHER = 0.03  # of all that is measured in one round, relative
_DISTURBED = 0.04  # of rounds, which lose up to a quarter
_LATENCIES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class Slower:
    """What is made slower on purpose: whom, in which measure, and how much of it is left."""

    who: str
    measure: str
    factor: float
    where: Mapping[str, Value] = field(default_factory=dict)


def results(*, seed: int, rounds: int = 11, slower: Slower | None = None) -> Results:
    """Return a run that ended."""
    made = [*_Made(random.Random(seed), rounds, rounds, slower).records()]
    return Results(
        _run(seed, rounds, "abc123"),
        tuple(each for each in made if isinstance(each, Sample)),
        tuple(each for each in made if isinstance(each, Distribution)),
        tuple(each for each in made if isinstance(each, Limit)),
        End(finished=FINISHED, complete=True),
    )


def write_run(
    path: Path,
    *,
    seed: int,
    rounds: int = 11,
    slow_rounds: int | None = None,
    slower: Slower | None = None,
    commit: str = "abc123",
) -> Path:
    """Write the file of a run that ended; what takes long may have had fewer rounds."""
    with Writer(path, _run(seed, rounds, commit)) as writer:
        for record in _Made(random.Random(seed), rounds, slow_rounds or rounds, slower).records():
            writer.add(record)
        writer.end(FINISHED, complete=True)
    return path


def _run(seed: int, rounds: int, commit: str) -> Run:
    return Run(
        started=STARTED,
        commit=commit,
        dirty=False,
        preset="full",
        parameters={"rounds": rounds, "flows": 10_000, "seed": seed},
        machine=MACHINE,
        kernel="6.18.0",
        versions={"kproxy": "0.1.0", "kube-proxy": "1.37.1", "iptables": "1.8.9"},
    )


@dataclass
class _Made:
    chance: random.Random
    rounds: int
    slow_rounds: int
    slower: Slower | None

    def records(self) -> Iterator[Sample | Distribution | Limit]:
        yield from self._forwarding()
        yield from self._connections()
        yield from self._control_plane()
        yield from self._disruption()
        yield Limit(
            part="forwarding",
            who="plain routing",
            where={},
            text="the generator was the limit: alone it makes 1.9 Mpps",
        )

    def _forwarding(self) -> Iterator[Sample]:
        for weather, number in self._weather(self.rounds):
            for path in PATHS:
                for who, speed in self._shuffled(SPEED):
                    where: dict[str, Value] = {"services": 10_000, "endpoints": 10}
                    where |= {"path": path, "protocol": "UDP"}
                    rate = 1.8e6 * speed * weather
                    yield self._sample("forwarding", "packets", "1/s", who, where, number, rate)
                    where = {**where, "protocol": "TCP"}
                    rate = 18_000 * speed**0.1 * weather
                    yield self._sample("forwarding", "bulk", "Mbit/s", who, where, number, rate)

    def _connections(self) -> Iterator[Sample | Distribution]:
        for weather, number in self._weather(self.rounds):
            for services in SIZES:
                for who, speed in self._shuffled(SPEED):
                    where: dict[str, Value] = {"services": services, "endpoints": 10}
                    where |= {"path": PATHS[0]}
                    worn = services**-0.01 if "proxy" in who else 1
                    rate = 60_000 * speed * weather * worn
                    yield self._sample(
                        "connections", "new connections", "1/s", who, where, number, rate
                    )
                    if services == SIZES[-1]:
                        spread = [
                            (
                                each,
                                0.11 / speed / weather * math.exp(each**40 * 3 - 0.3 * (1 - each)),
                            )
                            for each in _LATENCIES
                        ]
                        yield Distribution(
                            part="connections",
                            measure="latency",
                            unit="ms",
                            who=who,
                            where=where,
                            round=number,
                            quantiles=tuple(spread),
                        )

    def _control_plane(self) -> Iterator[Sample]:
        for weather, number in self._weather(self.slow_rounds):
            for services in SIZES:
                for who in self.chance.sample(PROXIES, len(PROXIES)):
                    ours = 1 if "kproxy" in who else 3
                    steep = 0.2 if "ebpf" in who else 0.6
                    where: dict[str, Value] = {"services": services, "endpoints": 10}
                    growth = ours * (services / 100) ** steep / weather
                    for measure, unit, least in (
                        ("first sync", "s", 0.4),
                        ("memory, peak", "MB", 60.0),
                        ("one change", "ms", 12.0),
                    ):
                        value = least * growth
                        yield self._sample(
                            "control plane", measure, unit, who, where, number, value
                        )

    def _disruption(self) -> Iterator[Sample]:
        for _, number in self._weather(self.slow_rounds):
            for scenario in SCENARIOS:
                for who in PROXIES:
                    where = {"scenario": scenario, "path": PATHS[0]}
                    for measure, expected in (("refused", 40), ("lost", 6), ("cut", 0)):
                        often = 0.0 if "kproxy" in who else expected
                        often *= self._left(who, measure, where)
                        count = sum(self.chance.random() < often / 100 for _ in range(100))
                        yield Sample(
                            part="disruption",
                            measure=measure,
                            unit="connections",
                            better="less",
                            who=who,
                            where=where,
                            round=number,
                            value=count,
                        )

    def _weather(self, rounds: int) -> Iterator[tuple[float, int]]:
        for number in range(1, rounds + 1):
            yield self.chance.lognormvariate(0, _WEATHER), number

    def _shuffled(self, speeds: Mapping[str, float]) -> list[tuple[str, float]]:
        return self.chance.sample([*speeds.items()], len(speeds))

    def _sample(
        self,
        part: str,
        measure: str,
        unit: str,
        who: str,
        where: Mapping[str, Value],
        number: int,
        value: float,
    ) -> Sample:
        more = unit in ("1/s", "Mbit/s")
        noisy = self.chance.lognormvariate(0, _NOISE)
        if self.chance.random() < _DISTURBED:
            noisy *= 1 - self.chance.uniform(0, 0.25)
        left = self._left(who, measure, where)
        return Sample(
            part=part,
            measure=measure,
            unit=unit,
            better="more" if more else "less",
            who=who,
            where=where,
            round=number,
            value=value * left * noisy if more else value / left / noisy,
        )

    def _left(self, who: str, measure: str, where: Mapping[str, Value]) -> float:
        meant = self.slower
        if meant is None or (who, measure) != (meant.who, meant.measure):
            return 1.0
        return meant.factor if meant.where.items() <= where.items() else 1.0
