"""What a run says of the goals: met, missed in so many words, or not measured."""

from __future__ import annotations

import pytest

from bench.goals import GOALS, Answer, Mark, answers, lines
from bench.model import Distribution, Results, Sample
from bench.parts import PARTS
from bench.traffic import Way
from tests.support.bench import results

RUN = results(seed=1, rounds=2).run
WHERE = {"services": 10_000, "endpoints": 10, "protocol": "TCP"}


def sample(part, measure, who, value, *, round_number=1, **where):
    return Sample(
        part=part,
        measure=measure,
        unit="MB",
        who=who,
        where=WHERE | where,
        round=round_number,
        better="less",
        value=value,
    )


def answered(*samples, distributions=()):
    said = answers(Results(RUN, samples, tuple(distributions)))
    return [each for each in said if isinstance(each, Answer)]


@pytest.mark.parametrize(("value", "met"), [(149.0, True), (150.0, True), (151.0, False)])
def test_a_value_is_met_up_to_the_goal(value, met):
    (answer,) = answered(sample("control", "memory", "kproxy ebpf", value))

    assert (answer.reached, answer.mark) == (value, Mark.MET if met else Mark.MISSED)


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        ((140.0, 149.0), Mark.MET),
        ((140.0, 151.0), Mark.OPEN),
        ((149.0, 171.0), Mark.OPEN),
        ((151.0, 160.0), Mark.MISSED),
    ],
)
def test_rounds_on_both_sides_of_a_goal_say_nothing_of_it(values, mark):
    (answer,) = answered(
        *(
            sample("control", "memory", "kproxy ebpf", value, round_number=number)
            for number, value in enumerate(values)
        )
    )

    assert answer.mark is mark


@pytest.mark.parametrize(("value", "met"), [(94.0, False), (96.0, True)])
def test_a_ratio_is_that_of_the_same_rounds(value, met):
    path = {"path": "clusterIP, from a pod"}
    measured = ("connections", "new connections")
    (answer,) = answered(
        sample(*measured, "kproxy ebpf", value, **path),
        sample(*measured, "kproxy ebpf", value * 3, round_number=2, **path),
        sample(*measured, "straight to the endpoint", 100.0, **path),
        sample(*measured, "straight to the endpoint", 300.0, round_number=2, **path),
    )

    assert answer.reached == pytest.approx(value / 100)
    assert answer.mark is (Mark.MET if met else Mark.MISSED)


def test_many_services_are_compared_with_one():
    measured = ("connections", "new connections", "kproxy iptables-nft")
    path = {"path": "clusterIP, from a pod"}
    (answer,) = answered(
        sample(*measured, 90.0, **path), sample(*measured, 100.0, **path | {"services": 1})
    )

    assert answer.reached == pytest.approx(0.9)
    assert answer.goal.wanted == "≥ 0.95 of 1 Service"


def test_a_machine_that_is_slower_at_one_size_is_taken_for_no_growth():
    measured = ("connections", "new connections")
    few = {"path": "clusterIP, from a pod", "services": 1}
    many = few | {"services": 10_000}
    (answer,) = answered(
        sample(*measured, "kproxy iptables-nft", 48.0, **many),
        sample(*measured, "plain routing", 50.0, **many),
        sample(*measured, "kproxy iptables-nft", 100.0, **few),
        sample(*measured, "plain routing", 100.0, **few),
    )

    assert answer.reached == pytest.approx(0.96)


def test_another_size_answers_no_goal():
    assert not answered(sample("control", "memory", "kproxy ebpf", 1.0, services=1_000))


def test_a_quantile_answers_as_well():
    spread = Distribution(
        part="control",
        measure="change to packets following, alone",
        unit="ms",
        who="kproxy ebpf",
        where=WHERE,
        round=1,
        quantiles=((0.5, 7.0), (0.99, 70.0)),
    )
    said = answered(distributions=[spread])

    assert [(each.reached, each.mark) for each in said] == [(7.0, Mark.MET), (70.0, Mark.MISSED)]


def test_every_goal_is_of_a_figure_that_the_bench_measures():
    units = {(part.name, each.name): each.unit for part in PARTS.values() for each in part.measures}
    ways = {way.value for way in Way}
    for goal in GOALS:
        name = goal.place.measure.removesuffix(", p50").removesuffix(", p99")
        unit = units[goal.place.part, name]
        assert goal.against or goal.unit == unit, goal.what
        assert goal.place.path in ways | {""}, goal.what


def test_the_summary_says_what_was_missed_and_what_was_not_measured():
    said = list(
        lines(
            Results(
                RUN,
                (
                    sample("control", "memory", "kproxy ebpf", 130.0),
                    sample("control", "memory", "kproxy ipvs", 160.0),
                    sample("control", "memory", "kproxy iptables-nft", 140.0),
                    sample("control", "memory", "kproxy iptables-nft", 160.0, round_number=2),
                ),
            )
        )
    )

    assert "1 met, 1 missed; of 1 it cannot be said" in said[0]
    assert f"{len(GOALS) - 3} not measured" in said[0]
    assert "| memory | kproxy ebpf | ≤ 150 MB | 130 (one round) | met |" in said
    assert "| memory | kproxy ipvs | ≤ 150 MB | 160 (one round) | **missed** |" in said
    assert "| memory | kproxy iptables-nft | ≤ 150 MB | 150 (140 to 160) | cannot be said |" in said
    assert "| a change, p50 | kproxy ebpf | ≤ 10 ms | not measured |  |" in said
    assert "at abc123, interrupted, Linux 6.18.0" in said[-2]
