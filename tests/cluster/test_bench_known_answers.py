"""A node that is slow on purpose, or loses a packet in a hundred: the right figure tells it."""

from __future__ import annotations

import statistics
import subprocess
from dataclasses import replace

import pytest

from bench import peers
from bench.parameters import PRESETS, Size
from bench.parts import PARTS
from bench.parts.connections import LATENCY, OPENED, UNANSWERED
from bench.parts.packets import FORWARDED, LOST
from bench.peers.routing import Straight
from tests.support import bench_run

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

_RULES = 12_000  # that every packet is compared with: far over what a busy machine adds
_AS_IT_IS, _SLOW, _LOSSY = "as it is", "slow", "loses one in a hundred"


class Made(Straight):
    """A node with more rules than it needs."""

    def __init__(self, name: str, *rules: str) -> None:
        self.name = name
        self._rules = rules

    def command(self, home):
        chain = "add chain ip made forward { type filter hook forward priority 10; }"
        rules = (f"add rule ip made forward {rule}" for rule in self._rules)
        table = "\n".join(("add table ip made", chain, *rules, ""))
        with home.stage.node.entered():
            subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)
        return super().command(home)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    slow = [f"ip daddr 198.51.{n >> 8}.{n & 255} counter" for n in range(_RULES)]
    made = {
        "as-it-is": Made(_AS_IT_IS),
        "slow": Made(_SLOW, *slow),
        "lossy": Made(_LOSSY, "numgen random mod 100 == 0 drop"),
    }
    for name, peer in made.items():
        monkeypatch.setitem(peers.PEERS, name, peer)
    parameters = replace(
        PRESETS["quick"],
        data_paths=(),
        peers=tuple(made),
        sizes=(Size(1, 1),),
        paths=("nodeport",),
        seconds=0.3,
        repeats=3,
        flows=1_000,
    )
    parts = [PARTS[name] for name in ("packets", "connections", "requests")]
    results, _ = bench_run.measured(tmp_path / "results.jsonl", parts, parameters)
    return results


def test_a_node_that_is_slow_or_loses_packets_is_told_by_the_right_figure(measured):
    found = {
        (figure.measure, figure.who): statistics.median(rounds.values.values())
        for figure, rounds in measured.figures().items()
        if (figure.part, dict(figure.where).get("protocol")) != ("requests", "UDP")
    }
    udp = {
        figure.who: statistics.median(rounds.values.values())
        for figure, rounds in measured.figures().items()
        if figure.measure == UNANSWERED.name and dict(figure.where)["protocol"] == "UDP"
    }

    def ratio(name, who):
        return found[name, who] / found[name, _AS_IT_IS]

    p50, p999 = f"{LATENCY.name}, p50", f"{LATENCY.name}, p99.9"
    assert ratio(FORWARDED.name, _SLOW) < 0.5
    assert ratio(OPENED.name, _SLOW) < 0.8
    assert ratio(p50, _SLOW) > 1.2
    assert found[LOST.name, _SLOW] == found[LOST.name, _AS_IT_IS] == 0
    assert 0.5 < found[LOST.name, _LOSSY] < 1.5
    assert found[p999, _LOSSY] > 100, "a lost packet is sent again after 200 ms at the soonest"
    assert found[UNANSWERED.name, _SLOW] == found[UNANSWERED.name, _AS_IT_IS] == 0
    assert udp[_SLOW] == udp[_AS_IT_IS] == 0
    assert 0.5 < udp[_LOSSY] < 4, "a datagram and its answer: two in a hundred; none is sent again"
    assert [each.text for each in measured.limits if each.who == _SLOW] == []
    lost = [each.text for each in measured.limits if each.who == _LOSSY]
    assert any("packets of" in text and "were lost" in text for text in lost), lost
