"""A proxy whose process is slow on purpose: its start and its changes tell it, no packet does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import peers
from bench.comparison import compare
from bench.parameters import PRESETS, Size
from bench.parts import PARTS, control
from bench.parts.control import ALONE, STARTED
from bench.peers.kproxy import Kproxy
from tests.support import bench_run

pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.timeout(600)]

# A start takes three times as long. A change waits for a tenth of a second, most often.
_STOPPED_MOST_OF_THE_TIME = """\
(while kill -STOP $$ 2>/dev/null; do sleep 0.2; kill -CONT $$; sleep 0.1; done &)
exec "$@"
"""
_ROUNDS = 11  # with fewer of one figure `compare` cannot tell


class Slow(Kproxy):
    """kproxy, but stopped and continued until it has ended."""

    def command(self, home):
        return ["sh", "-c", _STOPPED_MOST_OF_THE_TIME, "sh", *super().command(home)]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure a proxy by the name of the data path `iptables-nft`."""
    for name, pause_s in (("_SETTLED_S", 0.1), ("_STORM_S", 1), ("_ALONE_S", (0.05, 0.2))):
        monkeypatch.setattr(control, name, pause_s)
    parameters = replace(
        PRESETS["quick"],
        data_paths=("iptables-nft",),
        peers=("routing",),
        sizes=(Size(20, 3),),
        paths=("clusterip", "nodeport"),
        seconds=0.1,
        repeats=_ROUNDS,
        starts=_ROUNDS,
        slow_repeats=_ROUNDS,
        changes=3,
        flows=1_000,
    )
    parts = [PARTS[name] for name in ("start", "changes", "packets")]

    def measure(proxy):
        monkeypatch.setitem(peers.KPROXY, "iptables-nft", proxy)
        file = tmp_path / f"{type(proxy).__name__}.jsonl"
        results, made = bench_run.measured(file, parts, parameters)
        assert made.failed == 0, results.limits
        return results

    return measure


def test_a_proxy_that_is_slow_is_told_by_starts_and_changes_and_by_no_packet(measured):
    before, after = (measured(proxy("iptables-nft")) for proxy in (Kproxy, Slow))
    found = compare(before, after, threshold=0.05, chance=0.001)
    worse = {change.figure.measure for change in found.of("worse")}
    assert worse >= {STARTED.name, f"{ALONE.name}, p50"}
    assert {change.figure.part for change in found.of("worse")} == {"start", "changes"}
    packets = [change for change in found.changes if change.figure.part == "packets"]
    assert packets
    assert not found.missing
