"""What the bench measures of a proxy at 10,000 Services, at 300: what must not grow."""

from __future__ import annotations

import pytest

from bench.parts.control import ALONE, IN_STORM, PEAK, START_CPU, STARTED, STEADY, STORM_CPU
from tests.cluster.test_bench import run

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

_MEMORY_MB = 75.0  # measured: 52
_STORM_CPU_S = 2.5  # of 1,000 changes; measured: 1.0


def test_following_a_cluster_costs_little(tmp_path):
    results = run(
        tmp_path / "results.jsonl",
        *("--parts", "start,changes", "--sizes", "300x10", "--changes", "3", "--starts", "1"),
        *("--data-paths", "iptables-legacy", "--peers", ""),
    )
    assert results.limits == ()
    found = {figure.measure: rounds.values[0] for figure, rounds in results.figures().items()}
    assert found[STEADY.name] < _MEMORY_MB
    assert found[STORM_CPU.name] < _STORM_CPU_S
    assert found[STARTED.name] > 0
    assert found[START_CPU.name] > 0
    assert found[PEAK.name] >= found[STEADY.name]
    assert {each.measure for each in results.distributions} == {ALONE.name, IN_STORM.name}
