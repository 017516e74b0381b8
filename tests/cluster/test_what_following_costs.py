"""What `make bench` measures at 10,000 Services, at 300: that it runs, and what must not grow."""

from __future__ import annotations

import pytest

from bench.api import agent_costs, filled, storm
from bench.cluster import Cluster

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

_CLUSTER = Cluster(services=300, endpoints=10)
_MEMORY_MB = 75.0  # measured: 50 alone, 58 the agent
_CORES = 0.25


def test_following_a_cluster_costs_little():
    with filled(_CLUSTER) as plane:
        alone = storm(_CLUSTER, plane)
        whole = agent_costs(_CLUSTER, plane, "iptables-legacy", starts=1)
    assert alone["cores"] < _CORES
    assert alone["steady_rss_mb"] < _MEMORY_MB
    assert whole["steady_rss_mb"] < _MEMORY_MB
    assert whole["first_sync_s"]["count"] == 1
