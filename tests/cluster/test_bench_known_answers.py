"""A node that is slow on purpose, or loses a packet in a hundred: the right figure tells it."""

from __future__ import annotations

import math
import statistics
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from click.testing import CliRunner

from bench import peers
from bench.__main__ import main
from bench.model import Writer
from bench.parameters import PRESETS, Size
from bench.parts import PARTS
from bench.parts.connections import LATENCY, OPENED, UNANSWERED
from bench.parts.packets import FORWARDED, LOST
from bench.peers.routing import Straight
from tests.support import bench_run

pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.timeout(600)]

_SECONDS, _ROUNDS, _REQUESTS = 0.15, 6, 300  # with fewer rounds nothing is compared
_SIGMAS = 6
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
        seconds=_SECONDS,
        requests=_REQUESTS,
        requests_per_s=2_000,
        repeats=_ROUNDS,
        flows=1_000,
    )
    parts = [PARTS[name] for name in ("packets", "connections", "requests")]
    results, _ = bench_run.measured(tmp_path / "results.jsonl", parts, parameters)
    return results


def test_a_node_that_is_slow_or_loses_packets_is_told_by_the_right_figure(measured, tmp_path):
    """Best rounds are compared with best rounds: a busy machine slows, and loses, never less."""
    found = best_rounds(measured, "TCP")
    udp = best_rounds(measured, "UDP")

    def ratio(figures, name, who):
        return figures[name, who] / figures[name, _AS_IT_IS]

    p50, p99 = f"{LATENCY.name}, p50", f"{LATENCY.name}, p99"
    assert ratio(udp, FORWARDED.name, _SLOW) < 0.5
    assert ratio(found, OPENED.name, _SLOW) < 0.8
    assert ratio(found, p50, _SLOW) > 1.2
    sent_again = rounds_of(measured, p99, _LOSSY, "TCP")
    assert statistics.median(sent_again) > 100, "a lost packet is, after 200 ms at the soonest"
    for who in (_SLOW, _AS_IT_IS):
        assert udp[LOST.name, who] == 0, who
        assert found[UNANSWERED.name, who] == udp[UNANSWERED.name, who] == 0, who
    packets = udp[FORWARDED.name, _LOSSY] * _SECONDS
    assert udp[LOST.name, _LOSSY] == pytest.approx(1, abs=chance(1, packets / _ROUNDS))
    there_or_back = 1.99  # lost in a hundred; nobody sends a datagram again
    assert udp[UNANSWERED.name, _LOSSY] < there_or_back + chance(there_or_back, _REQUESTS)
    slow, lossy = (
        [each.text for each in measured.limits if each.who == who] for who in (_SLOW, _LOSSY)
    )
    assert [text for text in slow if not bench_run.is_of_a_stall(text)] == []
    assert any("packets of" in text and "were lost" in text for text in lossy), lossy
    assert any("no answer to" in text for text in lossy), lossy

    done = compared(measured, tmp_path, _AS_IT_IS, _SLOW)
    assert done.exit_code == 1, done.output
    assert "packets: packets forwarded, 1/s" in done.output.partition("worse: ")[2]
    assert compared(measured, tmp_path, _AS_IT_IS, _AS_IT_IS).exit_code == 0


def compared(measured, folder, before, after):
    """Compare two nodes as if one had become the other, beside the lossy one, which stays."""
    files = [written(measured, folder / f"{n}.jsonl", who) for n, who in enumerate((before, after))]
    return CliRunner().invoke(main, ["compare", *map(str, files)])


def written(measured, file, who):
    """Write what was measured of a node, under another name, and of the lossy one."""
    file.unlink(missing_ok=True)
    with Writer(file, measured.run) as writer:
        for each in (*measured.samples, *measured.distributions):
            if each.who in (who, _LOSSY):
                name = "the node" if each.who == who else each.who
                writer.add(msgspec.structs.replace(each, who=name))
        writer.end(datetime.now(UTC), complete=True)
    return file


def best_rounds(measured, protocol):
    """Return the best round of each figure of a protocol."""
    return {
        (figure.measure, figure.who): (max if rounds.better == "more" else min)(
            rounds.values.values()
        )
        for figure, rounds in measured.figures().items()
        if dict(figure.where).get("protocol") == protocol
    }


def rounds_of(measured, measure, who, protocol):
    """Return all rounds of a figure."""
    (found,) = (
        rounds.values.values()
        for figure, rounds in measured.figures().items()
        if (figure.measure, figure.who) == (measure, who)
        and dict(figure.where)["protocol"] == protocol
    )
    return found


def chance(percent, count):
    """Return by how many per cent it is off, of so many, once in a thousand million times."""
    share = percent / 100
    return 100 * _SIGMAS * math.sqrt(share * (1 - share) / count)
