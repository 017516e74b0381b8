"""Medians, intervals and what is noise, against known answers."""

from __future__ import annotations

import random
import statistics

import pytest

from bench.noise import (
    deviation,
    ratios,
    shift,
    spread,
    standard_error,
    student,
    usual_deviation,
)


@pytest.mark.parametrize(
    ("count", "place", "confidence"),
    # The table in Conover, Practical Nonparametric Statistics: order statistics of the median.
    [(6, 1, 0.969), (9, 2, 0.961), (11, 2, 0.988), (15, 4, 0.965), (31, 10, 0.971)],
)
def test_the_interval_of_a_median_ends_at_the_order_statistics_of_the_table(
    count, place, confidence
):
    found = spread(random.Random(count).sample(range(1, count + 1), count))

    assert (found.low, found.high) == (place, count + 1 - place)
    assert found.confidence == pytest.approx(confidence, abs=0.0006)
    assert (found.median, found.smallest, found.largest) == ((count + 1) / 2, 1, count)


@pytest.mark.parametrize(("count", "confidence"), [(1, 0), (2, 0.5), (3, 0.75), (5, 0.9375)])
def test_few_rounds_say_what_confidence_they_reach(count, confidence):
    found = spread(range(count))

    assert (found.low, found.high, found.confidence) == (0, count - 1, confidence)


def test_ratios_are_of_the_same_round():
    assert ratios({1: 10.0, 2: 30.0, 3: 1.0}, {2: 10.0, 1: 5.0, 4: 7.0}) == [2.0, 3.0]


def test_a_round_whose_baseline_is_nothing_has_no_ratio():
    assert ratios({1: 10.0, 2: 30.0}, {1: 0.0, 2: 10.0}) == [3.0]


def test_a_shift_stands_a_disturbed_round():
    assert shift([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 5.0, 6.0, -900.0]) == pytest.approx(2, abs=1)


@pytest.mark.parametrize("estimate", [deviation, usual_deviation])
def test_the_deviation_of_normal_noise_is_found_whatever_the_middles(estimate):
    chance = random.Random(5)
    groups = [[chance.gauss(middle, 3) for _ in range(5)] for middle in range(0, 2_000, 10)]

    assert estimate(groups) == pytest.approx(3, rel=0.1)


def test_a_few_disturbed_rounds_hardly_change_the_usual_deviation():
    chance = random.Random(6)
    groups = [[chance.gauss(0, 1) for _ in range(10)] + [-50.0] for _ in range(40)]

    assert usual_deviation(groups) == pytest.approx(1.7, abs=0.3)
    assert deviation(groups) > 10


def test_one_round_tells_of_no_noise():
    assert deviation([[4.0], []]) == usual_deviation([[4.0], []]) == 0


def test_the_standard_error_is_that_of_shifts_of_normal_noise():
    chance = random.Random(7)
    shifts = [
        shift([chance.gauss(0, 2) for _ in range(9)], [chance.gauss(0, 2) for _ in range(5)])
        for _ in range(2_000)
    ]

    assert statistics.stdev(shifts) == pytest.approx(standard_error(2, 9, 5), rel=0.08)


@pytest.mark.parametrize(
    ("chance", "freedom", "table"),
    [
        (0.05, 5, 2.5706),
        (0.01, 4, 4.6041),
        (0.01, 10, 3.1693),
        (0.001, 10, 4.5869),
        (1e-6, 10, 10.5165),
        (1e-6, 30, 6.1192),
        (1e-6, 10**6, 4.8916),
    ],
)
def test_students_t_is_that_of_the_table(chance, freedom, table):
    assert student(chance, freedom) == pytest.approx(table, rel=0.01)
