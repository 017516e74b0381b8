"""Known answers: what was made slower is told, in the right figure, and what was not is not."""

from __future__ import annotations

import math

import pytest

from bench.comparison import compare, reference
from bench.model import Figure
from tests.support.bench import PATHS, SIZES, Slower, results

# Of any false alarm in one comparison. The seeds are fixed: this is how unlikely bad ones were.
CHANCE = 1e-7
ROUNDS = 15
EBPF, KUBE_PROXY = "kproxy ebpf", "kube-proxy nftables"


def run(seed, *, rounds=ROUNDS, slower=None):
    return results(seed=seed, rounds=rounds, slower=slower)


def told(found, verdict):
    return {(each.figure.who, each.figure.measure) for each in found.of(verdict)}


@pytest.mark.parametrize("seed", range(3))
def test_equal_runs_are_not_told_apart(seed):
    found = compare(run(seed), run(seed + 100), threshold=0.05, chance=CHANCE)

    assert len(found.changes) > 150
    assert found.of("worse") == found.of("better") == found.of("unclear") == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("slower", "changed"),
    [
        (Slower(EBPF, "packets", 0.85), 3),
        (Slower(KUBE_PROXY, "new connections", 0.85), 3),
        (Slower(KUBE_PROXY, "new connections", 0.8, {"services": SIZES[1]}), 1),
        (Slower(EBPF, "first sync", 0.8, {"services": SIZES[2]}), 1),
        (Slower(EBPF, "one change", 0.8), 3),
        (Slower(EBPF, "packets", 0.8, {"path": PATHS[1]}), 1),
    ],
)
def test_what_was_made_slower_is_told_in_the_right_figure(seed, slower, changed):
    one, other = run(seed), run(seed + 100, slower=slower)
    found = compare(one, other, threshold=0.05, chance=CHANCE)
    back = compare(other, one, threshold=0.05, chance=CHANCE)

    assert told(found, "worse") == told(back, "better") == {(slower.who, slower.measure)}
    assert len(found.of("worse")) == len(back.of("better")) == changed
    assert all(
        slower.where.items() <= dict(each.figure.where).items() for each in found.of("worse")
    )
    assert found.of("better") == back.of("worse") == []


def test_ten_per_cent_are_told_of_most_rounds_that_differ_by_three():
    slower = Slower(EBPF, "packets", 0.9)
    hits = [
        compare(run(seed), run(seed + 100, slower=slower), threshold=0.05, chance=0.001)
        for seed in range(3)
    ]

    assert sum(len(each.of("worse")) for each in hits) >= 7  # of 9
    assert {who for each in hits for who, _ in told(each, "worse")} == {EBPF}


def test_how_much_a_figure_changed_is_said():
    found = compare(
        run(1), run(2, slower=Slower(EBPF, "packets", 0.8)), threshold=0.05, chance=0.01
    )

    assert [each.change for each in found.of("worse")] == [pytest.approx(-0.2, abs=0.03)] * 3


def test_lost_connections_are_told_where_none_was_lost():
    """One connection in a hundred is lost: counts, whose ratio to none is no number."""
    slower = Slower("kube-proxy nftables", "cut", 1.0)
    one, other = run(1), run(2)
    spoiled = [
        type(each)(**{**_fields(each), "value": each.value + 9})
        if (each.who, each.measure) == (slower.who, slower.measure)
        else each
        for each in other.samples
    ]
    found = compare(one, _with(other, spoiled), threshold=0.05, chance=CHANCE)

    assert told(found, "worse") == {(slower.who, slower.measure)}
    assert {each.change for each in found.of("worse")} == {math.inf}


def test_a_change_below_the_threshold_does_not_matter():
    slower = Slower(EBPF, "packets", 0.85)
    found = compare(run(1), run(101, slower=slower), threshold=0.3, chance=CHANCE)

    assert found.of("worse") == []


def test_a_machine_that_is_slower_as_a_whole_makes_no_figure_beside_the_limit_worse():
    one, other = run(1), run(2)
    slowed = [
        type(each)(**{**_fields(each), "value": each.value * 0.7})
        if each.measure == "packets"
        else each
        for each in other.samples
    ]
    found = compare(one, _with(other, slowed), threshold=0.05, chance=CHANCE)

    assert told(found, "worse") == {
        ("plain routing", "packets"),
        ("straight to the endpoint", "packets"),
    }


def test_a_limit_that_moved_alone_makes_no_proxy_better():
    slower = Slower("plain routing", "packets", 0.7)
    found = compare(run(1), run(2, slower=slower), threshold=0.05, chance=CHANCE)

    assert told(found, "worse") == {("plain routing", "packets")}
    assert found.of("better") == []


def test_two_rounds_tell_nothing():
    slower = Slower(EBPF, "packets", 0.5)
    found = compare(run(1, rounds=2), run(2, rounds=2, slower=slower), threshold=0.05, chance=0.01)

    assert {each.verdict for each in found.changes} == {"unclear"}


def test_figures_of_one_run_alone_are_named():
    one, other = run(1, rounds=3), run(2, rounds=3)
    fewer = _with(other, [each for each in other.samples if each.part != "disruption"])

    lacking, new = (
        compare(*both, threshold=0.05, chance=0.01) for both in ((one, fewer), (fewer, one))
    )
    assert (
        {each.part for each in lacking.missing} == {each.part for each in new.new} == {"disruption"}
    )
    assert lacking.new == new.missing == ()


def test_the_reference_is_the_peer_without_a_proxy_under_the_same_circumstances():
    figures = run(1, rounds=3).figures()
    figure = next(each for each in figures if (each.who, each.measure) == (EBPF, "packets"))

    limit = reference(figure, figures)
    assert limit == Figure(*("forwarding", "packets", "1/s", "plain routing"), figure.where)
    assert reference(limit, figures) is None
    del figures[limit]
    assert reference(figure, figures).who == "straight to the endpoint"


def test_a_reference_need_not_know_of_services():
    figure = Figure("p", "m", "u", EBPF, (("path", "here"), ("services", 10)))
    bare = Figure("p", "m", "u", "plain routing", (("path", "here"),))
    elsewhere = Figure("p", "m", "u", "plain routing", (("path", "there"),))

    assert reference(figure, dict.fromkeys((elsewhere, bare))) == bare


def _fields(sample):
    return {name: getattr(sample, name) for name in sample.__struct_fields__}


def _with(results, samples):
    return type(results)(results.run, tuple(samples), results.distributions, results.limits)
