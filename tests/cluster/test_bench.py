"""The bench itself: everybody forwards every way, and what was sent arrives. Nothing is timed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from bench.bed import chosen
from bench.model import BadResults, read
from bench.parameters import PRESETS
from bench.parts import PARTS
from bench.parts.connections import OPENED, UNANSWERED
from bench.parts.disruption import BACK, CUT, EVENTS, FROM_KUBE_PROXY, HELD, HELD_CUT, REFUSED
from bench.parts.disruption import LOST as UNANSWERED_CALLS
from bench.parts.packets import ALONE, FORWARDED
from bench.parts.programs import FOREIGN
from bench.traffic import WAYS
from tests.support import bench_run
from tests.support.ebpf.place import cgroup_root
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.timeout(12 * LONGEST_S)]


def test_everybody_forwards_every_way_and_loses_nothing(tmp_path):
    values, timed = forwarded(tmp_path, "packets,connections,requests,bulk")
    assert_all_arrived(values, timed, "IPv4")
    for tcp in everybody("TCP", None):
        assert values[(OPENED.name, *tcp)] > 0, tcp
        assert values[("bulk TCP", *tcp)] > 0, tcp


def test_everybody_forwards_ipv6_and_loses_nothing(tmp_path):
    values, timed = forwarded(tmp_path, "packets,requests", "--families", "IPv6")
    assert_all_arrived(values, timed, "IPv6")


def forwarded(folder, parts, *arguments):
    """Have all peers of the full preset forward; return what was found, and what was timed."""
    full = PRESETS["full"]
    paths, peers = ",".join(full.data_paths), ",".join(full.peers)
    whom = ("--parts", parts, "--data-paths", paths, "--peers", peers, *arguments)
    results = bench_run.run(folder / "results.jsonl", *whom)
    if unexplained(results) and all(map(bench_run.is_of_a_stall, unexplained(results))):
        results = bench_run.run(folder / "again.jsonl", *whom)
    assert results.complete
    assert unexplained(results) == []
    values = {
        (figure.measure, *about(figure.who, dict(figure.where))): rounds.values[0]
        for figure, rounds in results.figures().items()
    }
    return values, {about(each.who, each.where) for each in results.distributions}


def unexplained(results):
    """Return what limited figures, but the load itself."""
    load = ("the generator is", "was the limit")
    return [each.text for each in results.limits if not any(some in each.text for some in load)]


def assert_all_arrived(values, timed, family):
    for udp in everybody("UDP", family):
        assert values[(FORWARDED.name, *udp)] > 0, udp
    for each in (*everybody("TCP", family), *everybody("UDP", family)):
        assert values[(UNANSWERED.name, *each)] == 0, each
        assert each in timed
    assert values[(FORWARDED.name, ALONE, None, None, family)] > 0


def everybody(protocol, family):
    """Return what figures are about that there are of everybody who can run here."""
    return [
        (peer.name, way.value, protocol, family)
        for peer in chosen(PRESETS["full"])
        if not peer.lacks()
        for way in WAYS.values()
    ]


def about(who, where):
    """Return of whom a figure is, and which traffic."""
    return who, where.get("path"), where.get("protocol"), where.get("family")


def test_what_data_paths_cost_by_themselves_is_measured_without_a_packet(tmp_path):
    results = bench_run.run(
        tmp_path / "results.jsonl",
        *("--parts", "core,programs", "--data-paths", "ebpf", "--peers", ""),
    )
    assert results.complete
    assert results.limits == ()
    found = {figure.measure: rounds.values[0] for figure, rounds in results.figures().items()}
    measures = {each.name for part in ("core", "programs") for each in PARTS[part].measures}
    assert found.keys() == measures
    # A program that does nothing may take as long as one that has to look at little.
    assert all(value > 0 for name, value in found.items() if name != FOREIGN.name), found


def test_what_happens_on_a_node_costs_clients_what_it_has_to(tmp_path):
    silent = ("a restart of the proxy", "a kill -9", FROM_KUBE_PROXY, BACK)
    cost = cost_of_events(tmp_path / "results.jsonl")
    assert {event for event, _ in cost} == {*EVENTS, FROM_KUBE_PROXY, BACK}
    for event in silent:
        for measure in (REFUSED, CUT, HELD_CUT):
            assert cost[event, measure.name] == 0, (event, measure)
    assert cost["a rolling restart", HELD_CUT.name] == 2 * HELD, "their pods are gone"
    assert cost["flushed tables", REFUSED.name] + cost["flushed tables", UNANSWERED_CALLS.name] > 0

    lost = {event for event in silent if cost[event, UNANSWERED_CALLS.name]}
    if lost:  # a processor that stood still for a while does so at another event the next time
        again = cost_of_events(tmp_path / "again.jsonl")
        lost &= {event for event in silent if again[event, UNANSWERED_CALLS.name]}
    assert lost == set()


def cost_of_events(file):
    """Return how many connections each event cost, by how."""
    results = bench_run.run(
        file, "--parts", "disruption", "--data-paths", "iptables-nft", "--peers", ""
    )
    assert results.complete
    # How soon a proxy notices that its tables are gone is its own matter.
    assert [each for each in results.limits if each.where.get("event") != "flushed tables"] == []
    return {
        (dict(figure.where)["event"], figure.measure): rounds.values[0]
        for figure, rounds in results.figures().items()
    }


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_the_host_clean_and_keeps_what_was_measured(tmp_path, ending):
    """However it is told to end, and also if somebody presses Ctrl-C again and again meanwhile."""
    to = tmp_path / "results.jsonl"
    more = ("--parts", "packets", "--data-paths", "iptables-nft,ebpf", "--peers", "routing")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen(
            [*bench_run.small_run(to), "--repeats", "500", *more],
            stderr=output,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
    try:
        until(lambda: samples_so_far(to) > 4, within_s=LONGEST_S, what="samples")
        assert all(made_on_host(process.pid, scratch))
        os.kill(process.pid, ending)
        until(lambda: "cleaning up" in said.read_text(), within_s=LONGEST_S, what="it hears")
    finally:
        until(lambda: ended(process), within_s=LONGEST_S, what="it ends")
    assert process.returncode == 130
    results = read(to)
    assert results.end is not None
    assert not results.complete
    assert len(results.samples) > 4
    assert made_on_host(process.pid, scratch) == ([], [], [])


def ended(process):
    """Interrupt a process and all that it has started, as a terminal does; say if it has ended."""
    if process.poll() is not None:
        return True
    os.killpg(process.pid, signal.SIGINT)
    return False


def samples_so_far(results):
    """Return how many samples a file of results holds that is being written."""
    try:
        return len(read(results).samples)
    except BadResults:  # it is not there yet, or has no whole line yet
        return 0


def made_on_host(pid, scratch):
    """Return what a run has made on the host: mounts, control groups, and processes.

    Other tests make the same beside it: its own are told by its number and its folder.
    """
    folder = str(scratch)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if folder in line]
    groups = sorted(path.name for path in cgroup_root().glob(f"kproxy-{pid}-*"))
    return mounts, groups, [each for each in environments() if folder.encode() in each]


def environments():
    """Yield with what environment each process runs."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            yield path.read_bytes()
