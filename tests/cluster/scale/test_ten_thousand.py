"""10,000 Services with 10 endpoints each, through a real API server; the costs are printed.

The times of DESIGN's goals are for a quiet machine and measured by `bench/api.py`. Memory and CPU
hardly depend on who else runs, so those are held to the goal itself.
"""

from __future__ import annotations

import json

import pytest

from bench.api import agent_costs, filled, storm
from bench.cluster import Cluster

pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.timeout(420)]

_LARGE = Cluster(services=10_000, endpoints=10)
_MEMORY_MB = 150.0
_CORES = 0.25
_IN_HAND_S = 15.0  # the goal is 2 s


def test_what_it_costs_to_follow_a_large_cluster(capsys):
    with filled(_LARGE) as plane:
        alone = storm(_LARGE, plane)
        whole = agent_costs(_LARGE, plane, "legacy", range(3))
    with capsys.disabled():
        print(f"\nsource and compiler alone: {json.dumps(alone)}")
        print(f"the agent, iptables legacy: {json.dumps(whole)}")
    assert alone["cores"] < _CORES
    assert alone["in_hand_s"]["max"] < _IN_HAND_S
    assert alone["steady_rss_mb"] < _MEMORY_MB
    assert whole["in_hand_s"] < _IN_HAND_S
    assert whole["steady_rss_mb"] < _MEMORY_MB
