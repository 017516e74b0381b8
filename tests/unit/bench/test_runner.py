"""Rounds, failures and interruptions of a run, with parts that measure nothing real."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import replace

import pytest

from bench import runner
from bench.node import PeerFailed
from bench.parameters import PRESETS, Size
from bench.part import Found, Limited, Measure, Part, Spread, Visit
from kproxy.ports.data_path import BackendError
from tests.support import bench_run
from tests.support.waiting import until

RATE = Measure("rate", "1/s", "more")
DELAY = Measure("delay", "ms", "less")
PARAMETERS = replace(PRESETS["quick"], sizes=(Size(2, 1),), repeats=3)


class Counting(Part):
    """Finds how often each was visited; `happens` may do something instead."""

    name = "counting"
    measures = (RATE,)

    def __init__(self, *names, happens=lambda _name, _times: None):
        self.made = []
        self.closed = False
        self._names = names
        self._happens = happens

    @contextlib.contextmanager
    def visits(self, bed):
        try:
            yield [
                Visit(name, {"protocol": "TCP"}, lambda name=name: self._go(name))
                for name in self._names
            ]
        finally:
            self.closed = True

    def _go(self, name):
        self.made.append(name)
        self._happens(name, self.made.count(name))
        yield Found(RATE, float(self.made.count(name)))


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Run parts without a kernel."""
    monkeypatch.setattr(runner, "Frames", contextlib.nullcontext)

    def run(*parts, parameters=PARAMETERS, raises=None):
        return bench_run.measured(tmp_path / "results.jsonl", parts, parameters, raises=raises)

    return run


def test_all_are_visited_once_a_round_and_once_before(measured):
    part = Counting("a", "b", "c")
    results, _ = measured(part)
    assert results.complete
    assert part.closed
    assert [sorted(part.made[n : n + 3]) for n in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    for figure, rounds in results.figures().items():
        assert rounds.values == {0: 2.0, 1: 3.0, 2: 4.0}, figure


def test_the_order_of_a_round_is_another_one_each_time(measured):
    part = Counting(*"abcdefgh")
    measured(part)
    assert len({tuple(part.made[n : n + 8]) for n in range(0, 32, 8)}) == 4


def test_who_fails_costs_its_own_figures(measured):
    def happens(name, times):
        if name == "a" and times == 3:
            raise PeerFailed("a has ended")

    results, made = measured(Counting("a", "b", happens=happens))
    assert made.failed == 1
    assert results.complete
    assert {figure.who: len(rounds.values) for figure, rounds in results.figures().items()} == {
        "a": 1,
        "b": 3,
    }
    assert [(limit.who, limit.text) for limit in results.limits] == [
        ("a", "it could not be measured: a has ended")
    ]


class Broken(Counting):
    """Cannot make what its visits need."""

    name = "broken"

    def __init__(self, *names, happens):
        super().__init__(*names)
        self._breaks = happens

    @contextlib.contextmanager
    def visits(self, bed):
        self._breaks()
        yield []


def refuses():
    raise BackendError("sending frames", "EINVAL", transient=False)


def waits_in_vain():
    until(lambda: False, within_s=0, what="iperf3 listens")


def says_why():
    subprocess.run(["sh", "-c", "echo no more ports >&2; exit 1"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (refuses, "sending frames: EINVAL"),
        (waits_in_vain, "iperf3 listens"),
        (says_why, "exit status 1. / no more ports"),
    ],
)
def test_a_part_that_cannot_begin_costs_its_own_figures(measured, happens, why):
    results, made = measured(Broken(happens=happens), Counting("a"))
    assert made.failed == 1
    assert results.complete
    assert {figure.part for figure in results.figures()} == {"counting"}
    (limit,) = results.limits
    assert (limit.part, limit.who) == ("broken", "everybody")
    assert why in limit.text


@pytest.mark.parametrize("bug", [RuntimeError, AssertionError, KeyError])
def test_a_bug_ends_the_run(measured, bug):
    def happens(_, times):
        raise bug

    results, _ = measured(Counting("a", happens=happens), raises=bug)
    assert not results.complete


def test_an_interruption_keeps_what_was_measured_and_takes_all_away(measured):
    def happens(_, times):
        if times == 3:
            raise KeyboardInterrupt

    part = Counting("a", happens=happens)
    results, _ = measured(part, raises=KeyboardInterrupt)
    assert part.closed
    assert results.end is not None
    assert not results.complete
    assert [sample.value for sample in results.samples] == [2.0]


def test_a_limit_is_said_once(measured):
    class Slow(Counting):
        def _go(self, name):
            yield Limited("the generator was the limit")
            yield Spread(DELAY, ((0.5, 1.0), (0.99, 2.0)))

    results, _ = measured(Slow("a"))
    assert [limit.text for limit in results.limits] == ["the generator was the limit"]
    assert [each.round for each in results.distributions] == [0, 1, 2]


def test_only_the_protocols_that_were_asked_for_are_visited(measured):
    part = Counting("a")
    results, _ = measured(part, parameters=replace(PARAMETERS, protocols=("UDP",)))
    assert results.samples == ()
    assert part.made == []
