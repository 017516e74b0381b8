"""Somebody else changes what is ours in the kernel while the proxy runs: it puts that right."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.kernel.faults import foreign
from tests.kernel.faults.meddling import MEDDLING
from tests.support.net.plan import NODE, POD1, POD2
from tests.support.node.cluster import both
from tests.support.node.node import EBPF, IPTABLES, REFUSED, Node
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

Drift = Callable[[Node, Family], None]

PAUSE_S = 0.05

SHOP = (
    *both("web", "10.96.0.20", POD1, POD2, ports=(port(80, node_port=30020),)),
    *both("idle", "10.96.0.30", ports=(port(80, node_port=30030),)),
)
ANSWERS = {
    "10.96.0.20:80": frozenset({POD1, POD2}),
    f"{NODE}:30020": frozenset({POD1, POD2}),
    "10.96.0.30:80": frozenset({REFUSED}),
    f"{NODE}:30030": frozenset({REFUSED}),
}


def table(node: Node, family: Family, name: str) -> list[str]:
    """Return a table as iptables-save prints it."""
    return node.iptables(family, f"-save -t {name}").splitlines()


def restore(node: Node, family: Family, name: str, *lines: str) -> None:
    text = "\n".join([f"*{name}", *lines, "COMMIT", ""])
    node.iptables(family, "-restore --noflush", text=text)


def flush(name: str, node: Node, family: Family) -> None:
    node.iptables(family, f"-t {name} -F")


def delete_a_chain(node: Node, family: Family) -> None:
    lines = table(node, family, "nat")
    chain = next(line.split()[0][1:] for line in lines if line.startswith(":KPROXY-SVC-"))
    references = [line for line in lines if line.endswith((f" -j {chain}", f" -g {chain}"))]
    assert references
    gone = [f"-D {line.removeprefix('-A ')}" for line in references]
    restore(node, family, "nat", *gone, f"-F {chain}", f"-X {chain}")


def delete_a_rule(node: Node, family: Family) -> None:
    node.iptables(family, "-t nat -D KPROXY-POSTROUTING 2")


def replace_a_rule(node: Node, family: Family) -> None:
    """Let a frontend be another port: neither the number nor the size of the rules changes."""
    rules = [line for line in table(node, family, "nat") if line.startswith("-A KPROXY-SERVICES ")]
    number, rule = next(item for item in enumerate(rules, start=1) if "--dport 80 " in item[1])
    other = rule.removeprefix("-A KPROXY-SERVICES ").replace("--dport 80 ", "--dport 81 ")
    restore(node, family, "nat", f"-R KPROXY-SERVICES {number} {other}")


def add_a_rule(node: Node, family: Family) -> None:
    node.iptables(family, "-t nat -I KPROXY-POSTROUTING 1 -j RETURN")


def remove_a_jump(node: Node, family: Family) -> None:
    lines = table(node, family, "nat")
    jump = next(line for line in lines if line.startswith("-A PREROUTING") and "KPROXY" in line)
    restore(node, family, "nat", f"-D {jump.removeprefix('-A ')}")


def repeat_a_jump(node: Node, family: Family) -> None:
    node.iptables(family, "-t nat -A OUTPUT -j KPROXY-SERVICES")


def reload_a_firewall(node: Node, family: Family) -> None:
    node.iptables(family, "-restore --counters", text=foreign.RULES)


def flush_everything(node: Node, family: Family) -> None:
    if node.variant == "nft":
        node.run("nft flush ruleset")
        return
    for name in ("filter", "nat", "mangle"):
        node.iptables(family, f"-t {name} -F")
        node.iptables(family, f"-t {name} -X")


DRIFTS: dict[str, Drift] = {
    "nat flushed": functools.partial(flush, "nat"),
    "filter flushed": functools.partial(flush, "filter"),
    "a chain deleted": delete_a_chain,
    "a rule deleted": delete_a_rule,
    "a rule added": add_a_rule,
    "a jump removed": remove_a_jump,
    "a jump repeated": repeat_a_jump,
    "a firewall reloaded": reload_a_firewall,
    "everything flushed": flush_everything,
    "a rule replaced": replace_a_rule,
}
# How the log tells of what the data path puts right by itself, or the loop has it do.
TOLD = {
    "entries edited": "repaired",
    "programs taken off devices": "putting our programs back",
    "programs taken off sockets": "socket hooks again",
    "links unpinned": "socket hooks again",
    "maps and programs unpinned": "put back",
    "stages emptied": "put back",
    "nothing let through": "others changed FORWARD",
}
SMALL = {"serviceEntries": 1024, "flowEntries": 1024, "affinityEntries": 1024}
# The number of rules stays, so it is the audit that finds this, and it finds it in chains that
# were read at least once since they were written.
FOUND_BY_AUDIT = "a rule replaced"
AUDITED_EVERY = "2s"


@dataclass(slots=True)
class Repair:
    """What became of one drift: whether all was ours again, and what else changed."""

    node: Node
    ours: list[str]
    drifted: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    done: bool = False

    def begin(self, drift: Drift) -> None:
        """Do the damage, and look at it before it can be repaired."""
        with self.node.started[0].held():
            for family in Family:
                drift(self.node, family)
            self.drifted = self.node.ours()
            self.foreign = foreign.seen(self.node)

    def is_done(self) -> bool:
        """Say whether everything of ours is as it was."""
        return self.node.ours() == self.ours

    def look(self) -> None:
        """Note it if it is done."""
        self.done = self.done or self.is_done()


def served(folder: Path, data_path: str, drift: str) -> Node:
    """Return a node with a running proxy and everybody else's rules."""
    node = Node(folder / drift.replace(" ", "-"), data_path)
    node.configure(
        iptables={"syncPeriod": AUDITED_EVERY if drift == FOUND_BY_AUDIT else "1h"},
        kproxy={"ebpf": SMALL},
    )
    node.manifests.put("shop", SHOP)
    foreign.settle(node)
    node.start()
    return node


def make_it_read(repair: Repair) -> None:
    """Disturb another chain than the one that is to change, and wait for the repair."""
    for family in Family:
        add_a_rule(repair.node, family)
    until(repair.is_done, within_s=LONGEST_S, what="repaired")


@pytest.fixture(scope="module")
def repairs(request, tmp_path_factory):
    """Do every drift on a node of its own, all at the same time: most of it is waiting."""
    folder = tmp_path_factory.mktemp("drift")
    drifts = MEDDLING if request.param == EBPF else DRIFTS
    nodes: dict[str, Node] = {}
    with contextlib.ExitStack() as closing:
        for drift in drifts:
            nodes[drift] = served(folder, request.param, drift)
            closing.callback(nodes[drift].close)
            if len(nodes) == 1:  # what it compiles and tries out all others have already
                nodes[drift].started[0].wait_for("ready: ")
        yield repaired(nodes, drifts)


def repaired(nodes: Mapping[str, Node], drifts: Mapping[str, Drift]) -> dict[str, Repair]:
    """Do every drift, and wait until all of it is put right or the time is up."""
    for node in nodes.values():
        node.started[0].wait_for("ready: ")
    repairs = {drift: Repair(node, node.ours()) for drift, node in nodes.items()}
    if FOUND_BY_AUDIT in repairs:
        make_it_read(repairs[FOUND_BY_AUDIT])
    for drift, repair in repairs.items():
        repair.begin(drifts[drift])
    give_up_at = time.monotonic() + LONGEST_S
    while not all(r.done for r in repairs.values()) and time.monotonic() < give_up_at:
        for repair in repairs.values():
            repair.look()
        time.sleep(PAUSE_S)
    return repairs


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("repairs", IPTABLES, indirect=True, scope="module")
def test_drift_of_rules_is_noticed_and_repaired_and_nothing_else_is_touched(repairs, drift):
    check(repairs[drift], told="repaired")


@pytest.mark.parametrize("drift", MEDDLING)
@pytest.mark.parametrize("repairs", [EBPF], indirect=True, scope="module")
def test_drift_of_programs_is_noticed_and_repaired_and_nothing_else_is_touched(repairs, drift):
    check(repairs[drift], told=TOLD[drift])


def check(repair: Repair, *, told: str) -> None:
    """All of ours is as it was, all of others is as it was then, and the log tells of it."""
    node = repair.node
    assert repair.drifted != repair.ours
    assert repair.done, node.started[0].said()
    assert foreign.seen(node) == repair.foreign
    assert node.answers(ANSWERS) == []
    node.started[0].wait_for(told)
