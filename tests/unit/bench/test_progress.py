"""How long a run will still take."""

from __future__ import annotations

import pytest

from bench.progress import Estimate


def test_what_is_left_is_guessed_from_the_visits_so_far():
    estimate = Estimate(["one"])
    estimate.begin(visits=2, rounds=5)
    assert estimate.done == 0.0
    for _ in range(4):
        estimate.made(0.5)
    assert estimate.done == pytest.approx(0.4)
    assert estimate.left_s == pytest.approx(3.0)


def spent(*seconds, parts):
    """Return an estimate after parts that took so long."""
    estimate = Estimate(parts)
    for each in seconds:
        estimate.begin(visits=1, rounds=2)
        estimate.made(each / 2)
        estimate.made(each / 2)
    return estimate


def test_parts_to_come_take_as_long_as_the_mean_of_those_before():
    estimate = spent(2.0, 6.0, parts=["one", "another", "a third"])
    assert estimate.left_s == pytest.approx((2.0 + 6.0) / 2)
    assert estimate.done == pytest.approx(2 / 3)


def test_what_was_measured_before_takes_as_long_as_the_last_time():
    estimate = spent(1.0, 20.0, 2.0, parts=["quick", "slow", "quick", "slow", "quick", "slow"])
    assert estimate.left_s == pytest.approx(20.0 + 2.0 + 20.0)


def test_a_part_that_nobody_can_be_visited_for_is_over():
    estimate = Estimate(["one"])
    estimate.begin(visits=0, rounds=3)
    assert estimate.done == 1.0
    assert estimate.left_s == 0.0
