"""A proxy whose process is slow on purpose: its start and its changes tell it, no packet does."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from bench import peers
from bench.parameters import PRESETS, Size
from bench.parts import PARTS, control
from bench.parts.control import ALONE, STARTED
from bench.parts.packets import FORWARDED, LOST
from bench.peers.kproxy import Kproxy
from tests.support import bench_run

# A minute and a half where nothing else runs: it waits for a proxy that is stopped mostly.
pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.timeout(600)]

_AS_IT_IS, _SLOW = "as it is", "stopped and continued"
_STOPPED_MOST_OF_THE_TIME = """\
(while kill -STOP $$ 2>/dev/null; do sleep 0.6; kill -CONT $$; sleep 0.1; done &)
exec "$@"
"""


class Made(Kproxy):
    """kproxy, run by some other command."""

    def __init__(self, name: str, *command: str) -> None:
        super().__init__("iptables-nft")
        self.name = name
        self._command = command

    def command(self, home):
        return [*self._command, *super().command(home)]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_STORM_S", 1)
    made = {
        "iptables-nft": Made(_AS_IT_IS),
        "iptables-legacy": Made(_SLOW, "sh", "-c", _STOPPED_MOST_OF_THE_TIME, "sh"),
    }
    for name, peer in made.items():
        monkeypatch.setitem(peers.KPROXY, name, peer)
    parameters = replace(
        PRESETS["quick"],
        data_paths=tuple(made),
        peers=("routing",),
        sizes=(Size(20, 3),),
        paths=("clusterip",),
        seconds=0.2,
        repeats=3,
        slow_repeats=3,
        changes=5,
        flows=1_000,
    )
    parts = [PARTS[name] for name in ("control", "packets")]
    results, run = bench_run.measured(tmp_path / "results.jsonl", parts, parameters)
    assert run.failed == 0, results.limits
    return results


def test_a_proxy_that_is_slow_is_told_by_its_start_and_changes_and_by_no_packet(measured):
    found = {(figure.measure, figure.who): rounds for figure, rounds in measured.figures().items()}

    def ratio(name):
        """Compare with its best round: a busy machine makes a proxy slower, never faster.

        Where the processor is what all wait for, whoever was stopped gets more of it then.
        """
        slow, as_it_is = (found[name, who].values.values() for who in (_SLOW, _AS_IT_IS))
        return statistics.median(slow) / min(as_it_is)

    assert ratio(STARTED.name) > 1.5
    assert ratio(f"{ALONE.name}, p50") > 1.5
    assert min(found[FORWARDED.name, _SLOW].values.values()) > 0
    for who in (_SLOW, _AS_IT_IS):
        assert min(found[LOST.name, who].values.values()) == 0, who
