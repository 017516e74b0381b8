"""When endpoints move whose Services are watched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench.answers import Answer
from bench.cluster import Cluster
from bench.parts import control

_MOVES = 5


class FollowsAllAtOnce:
    """Lets no client reach a moved endpoint before all have moved."""

    def __init__(self, _):
        self._expected = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def waits(self):
        return bool(self._expected)

    def expect(self, cluster_ip, by):
        self._expected.append(cluster_ip)

    def answers(self, *, until_s):
        if len(self._expected) < _MOVES:
            return []
        found = [Answer(each, 60.0) for each in self._expected]
        self._expected.clear()
        return found


class Bed:
    """An API server that stores each move one second after the last, by a clock of its own."""

    def __init__(self):
        self.cluster = Cluster(_MOVES, 1)
        self.api = self
        self._stored_s = 0.0

    def put(self, document):
        self._stored_s += 1.0
        return self._stored_s


def test_no_move_waits_for_those_before_and_each_is_timed_from_when_it_was_stored(monkeypatch):
    monkeypatch.setattr(control, "Calling", FollowsAllAtOnce)
    checks = iter(range(10_000))

    def check(deadline_s, missing):
        assert next(checks) < 9_999, missing

    node = SimpleNamespace(stage=None, check=check)
    moves = [control.Move(0.001 * n, n, n) for n in reversed(range(_MOVES))]
    delays_ms = control.delays_ms(Bed(), node, moves)
    assert delays_ms == pytest.approx([59_000, 58_000, 57_000, 56_000, 55_000])
