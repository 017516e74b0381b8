"""How long clients of the bench are watched after an event."""

from __future__ import annotations

import pytest

from tests.support import bench_run

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]


def test_losses_that_go_on_when_the_watch_ends_are_told(tmp_path):
    """The real kube-proxy does not notice within seconds that its tables of nftables are empty."""
    results = bench_run.run(
        tmp_path / "results.jsonl",
        *("--parts", "disruption", "--data-paths", "", "--peers", "kube-proxy-nftables"),
    )
    assert results.complete
    (limit,) = results.limits
    assert limit.where["event"] == "flushed tables"
    assert limit.text == "clients still failed when the watch of 4 s ended"
