"""SIGTERM while rules are being written."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.support.net.plan import NODE, POD1, POD2
from tests.support.node.cluster import both
from tests.support.node.node import IPTABLES, REFUSED
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

PORTS = (port(80, node_port=30020),)
OLD = (
    *both("web", "10.96.0.20", POD1, ports=PORTS),
    *both("busy", "10.96.0.30", POD1),
)
NEW = (
    *both("web", "10.96.0.20", POD2, ports=PORTS),
    *both("busy", "10.96.0.30"),
)
BEFORE = {
    "10.96.0.20:80": frozenset({POD1}),
    f"{NODE}:30020": frozenset({POD1}),
    "10.96.0.30:80": frozenset({POD1}),
}
AFTER = {
    "10.96.0.20:80": frozenset({POD2}),
    f"{NODE}:30020": frozenset({POD2}),
    "10.96.0.30:80": frozenset({REFUSED}),
}
ASK_TO_STOP = "kill -TERM $PPID; sleep 0.3"


@pytest.mark.parametrize("restore", [1, 2, 3])
@pytest.mark.parametrize("variant", IPTABLES)
def test_the_write_is_finished_and_the_rules_stay(node, restore):
    node.manifests.put("shop", OLD)
    proxy = node.ready()
    assert node.answers(BEFORE) == []
    node.tools.forget()
    node.tools.at(restore, ASK_TO_STOP)
    node.manifests.put("shop", NEW)

    assert proxy.ended() == 0, proxy.said()
    written = [f for f in Family if node.answers(AFTER, families=(f,)) == []]
    unchanged = [f for f in Family if node.answers(BEFORE, families=(f,)) == []]
    assert written
    assert sorted([*written, *unchanged], key=list(Family).index) == list(Family)
    node.once()
    assert node.answers(AFTER) == []


@pytest.mark.parametrize("variant", ["nft"])
@pytest.mark.parametrize("after_s", [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_the_first_process_of_a_container_can_be_stopped_at_any_time(node, after_s):
    """The kernel keeps from it what it has no handler for."""
    node.manifests.put("shop", OLD)
    proxy = node.start(prefix=("unshare", "--pid", "--fork", "--kill-child"))
    handles = f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children"
    until(lambda: handling(handles), within_s=LONGEST_S, what="a handler of SIGTERM")
    time.sleep(after_s)
    os.kill(int(Path(handles).read_text()), signal.SIGTERM)
    assert proxy.ended() in (0, 128 + signal.SIGTERM), proxy.said()


def handling(children):
    """Say whether the one child in a list handles SIGTERM."""
    child = Path(children).read_text().strip()
    if not child or "python" not in Path(f"/proc/{child}/exe").readlink().name:
        return False
    status = Path(f"/proc/{child}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[1], 16)
    return caught >> (signal.SIGTERM - 1) & 1


@pytest.mark.parametrize("variant", IPTABLES)
def test_before_the_first_rule_it_ends_as_well(node):
    node.manifests.put("shop", OLD)
    node.tools.at(1, ASK_TO_STOP)
    proxy = node.start()
    assert proxy.ended() == 0, proxy.said()
    assert node.answers(BEFORE, families=(Family.IPV4,)) == []


@pytest.mark.parametrize("variant", ["legacy"])  # whose clean-up runs a program that can be held
def test_one_that_starts_during_a_clean_up_waits_for_its_end(node):
    node.manifests.put("shop", OLD)
    node.once()
    node.tools.forget()
    node.tools.at(1, f"until [ -e {node.folder}/waits ]; do sleep 0.05; done")
    cleaning = node.kproxy("cleanup")
    until(lambda: node.tools.calls(), within_s=LONGEST_S, what="the clean-up")
    proxy = node.start()
    proxy.wait_for("waiting until it ends")
    (node.folder / "waits").touch()
    assert cleaning.ended() == 0, cleaning.said()
    proxy.wait_for("ready: ")
    assert node.answers(BEFORE) == []
