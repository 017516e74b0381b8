"""kill -9 at every step of an apply: traffic goes on, and the next start finishes the work."""

from __future__ import annotations

import itertools
import re
import signal
import time
from collections.abc import Mapping

import pytest

from kproxy.core.addresses import Family
from tests.support.net.plan import FAR1, NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.node import EBPF, IPTABLES, LEFT, REFUSED, SILENT, Node, Word
from tests.support.node.tools import KILL_AFTER, KILL_BEFORE, KILL_DURING
from tests.support.node.web import web_everywhere
from tests.support.packets.objects import ApiObject, port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

UNAFFECTED = "10.96.0.10:80"
_LOCAL = {"externalTrafficPolicy": "Local"}
_STICKY = {"sessionAffinity": "ClientIP"}

OLD = (
    *both("steady", "10.96.0.10", POD2),
    *both("web", "10.96.0.20", POD1, ports=(port(80, node_port=30020),)),
    *both("idle", "10.96.0.30", ports=(port(80, node_port=30030),)),
    *both("busy", "10.96.0.40", POD1, ports=(port(80, node_port=30040),)),
    *both("old", "10.96.0.50", POD2),
    *both("local", "10.96.0.70", POD1, ports=(port(80, node_port=30070),), **_LOCAL),
    *both("sticky", "10.96.0.80", POD1, **_STICKY),
)
NEW = (
    *both("steady", "10.96.0.10", POD2),
    *both("web", "10.96.0.20", POD3, FAR1, ports=(port(80, node_port=30020),)),
    *both("idle", "10.96.0.30", POD1, ports=(port(80, node_port=30030),)),
    *both("busy", "10.96.0.40", ports=(port(80, node_port=30040),)),
    *both("new", "10.96.0.60", POD3),
    *both("local", "10.96.0.70", FAR1, ports=(port(80, node_port=30070),), **_LOCAL),
    *both("sticky", "10.96.0.80", POD3, **_STICKY),
)


RESTORES_OF_A_CHANGE = 3  # filter, nat, filter
RESTORES_OF_A_NEW_SERVICE = 2  # nat, filter: it is served before the rest of its clusterIP refuses
# What the log says first of a start that is to be cut short, and the time between the moments.
BEGINS = {**dict.fromkeys(IPTABLES, "writing rules with"), EBPF: "proxy mode ebpf"}
STEP_S = {**dict.fromkeys(IPTABLES, 0.015), EBPF: 0.1}

KILLS = 50
# What a kill cuts short, time and again, at so many moments of it in turn.
PHASES = (*["a start"] * 5, *["a change"] * 2, "an upgrade")
STEPS = 7
CHANGE_S = 0.05

Answers = Mapping[str, frozenset[Word]]


def words(*each: str) -> frozenset[str]:
    return frozenset(each)


# Frontend -> what a client outside may get: before the change, and after it.
ANSWERS = {
    UNAFFECTED: (words(POD2), words(POD2)),
    "10.96.0.20:80": (words(POD1), words(POD3, FAR1)),
    f"{NODE}:30020": (words(POD1), words(POD3, FAR1)),
    "10.96.0.30:80": (words(REFUSED), words(POD1)),
    f"{NODE}:30030": (words(REFUSED), words(POD1)),
    "10.96.0.40:80": (words(POD1), words(REFUSED)),
    f"{NODE}:30040": (words(POD1), words(REFUSED)),
    "10.96.0.50:80": (words(POD2), words(LEFT)),
    "10.96.0.60:80": (words(LEFT), words(POD3)),
    f"{NODE}:30070": (words(POD1), words(SILENT)),
    "10.96.0.80:80": (words(POD1), words(POD3)),
}
BEFORE = {frontend: old for frontend, (old, _) in ANSWERS.items()}
AFTER = {frontend: new for frontend, (_, new) in ANSWERS.items()}
EITHER = {frontend: old | new for frontend, (old, new) in ANSWERS.items()}
# The address itself comes or goes: between the two tables it is known and not yet served, or no
# longer, so it refuses. Nothing else may be heard of it, least of all from the default gateway
# before it is gone.
EITHER |= {
    frontend: EITHER[frontend] | {REFUSED} for frontend in ("10.96.0.50:80", "10.96.0.60:80")
}


def wanted(node: Node, objects: tuple[ApiObject, ...]) -> list[str]:
    """Return what an apply of these objects that nobody disturbs leaves in the kernel."""
    node.manifests.put("shop", objects)
    node.once()
    return node.ours()


def finishes(node: Node, ours: list[str], answers: Answers) -> bool:
    """Say whether traffic is as it may be now, and as it must be after another start."""
    assert node.answers(EITHER) == []
    node.once()
    assert node.answers(answers) == []
    return node.ours() == ours


@pytest.fixture
def changing(node):
    """Yield the ways of a node that is told to change from one cluster to the other and back.

    Each is what it will hold in the end, and how it will answer.
    """
    new, old = wanted(node, NEW), wanted(node, OLD)
    assert node.answers(BEFORE) == []

    def changes():
        for objects, *then in itertools.cycle([(NEW, new, AFTER), (OLD, old, BEFORE)]):
            node.manifests.put("shop", objects)
            yield then

    return changes()


def kill_at(node: Node, call: int, how: str) -> None:
    """Run an apply that is killed at one restore."""
    node.tools.forget()
    node.tools.at(call, how)
    proxy = node.start("--once")
    assert proxy.ended() == -signal.SIGKILL, proxy.said()


@pytest.mark.parametrize("variant", IPTABLES)
def test_killed_at_any_restore_the_old_or_the_new_is_in_force_and_a_start_finishes(node, changing):
    restores = range(1, 2 * RESTORES_OF_A_CHANGE + 1)
    steps = [(1, KILL_BEFORE), *itertools.product(restores, (KILL_DURING, KILL_AFTER))]
    for (call, how), (ours, answers) in zip(steps, changing, strict=False):
        kill_at(node, call, how)
        assert finishes(node, ours, answers), f"at restore {call}: {how}"


@pytest.mark.parametrize("variant", [*IPTABLES, EBPF])  # in ipvs mode what drains stays for a while
def test_killed_at_any_moment_the_old_or_the_new_is_in_force_and_a_start_finishes(
    node, changing, variant
):
    """Between the restores there are ipsets, settings and stale flows."""
    for step, (ours, answers) in zip(range(6), changing, strict=False):
        proxy = node.start("--once")
        proxy.wait_for(BEGINS[variant])
        time.sleep(step * STEP_S[variant])
        proxy.kill()
        assert finishes(node, ours, answers), f"{step * STEP_S[variant]} s after it was opened"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", [EBPF])  # elsewhere little happens between two restores
def test_killed_fifty_times_under_traffic_nobody_is_lost_and_a_start_finishes(
    node, flowing_everywhere
):
    flowing = flowing_everywhere
    assert node.started[0].stop() == 0
    wanted = {}
    for pods in ((POD1,), (POD1, POD2)):
        node.manifests.put("web", web_everywhere(*pods))
        node.once()
        wanted[pods] = without_numbers(node.ours())

    # Maps of another size make another version.
    upgrades = itertools.cycle([{"ebpf": {"serviceEntries": 65536}}, {}])
    takes_s = {"a start": ready_after_s(node), "a change": CHANGE_S}
    node.configure(kproxy=next(upgrades))
    takes_s["an upgrade"] = ready_after_s(node)
    for kill in range(KILLS):
        during = PHASES[kill % len(PHASES)]
        pods = (POD1, POD2) if kill % 2 else (POD1,)
        if during == "an upgrade":
            node.configure(kproxy=next(upgrades))
        proxy = node.start()
        if during == "a change":
            proxy.wait_for("ready: ")
        node.manifests.put("web", web_everywhere(*pods))
        time.sleep((1 + kill % STEPS) / STEPS * takes_s[during])
        proxy.kill()
        assert flowing.silenced == [], f"kill {kill}, during {during}"

    assert flowing.flow(1).lasting_met == {POD1}

    node.configure()
    node.once()
    assert without_numbers(node.ours()) == wanted[pods]
    node.once()
    for family in Family:
        assert f"{family.value}: wrote 0 kernel objects" in node.started[-1].said()
    until(lambda: flowing.flow(1).new_met == set(pods), within_s=LONGEST_S, what=f"{pods} serve")
    assert flowing.silenced == []


def ready_after_s(node: Node) -> float:
    """Return how long a start takes here."""
    proxy = node.start()
    took_s = proxy.wait_for("ready: ")
    assert proxy.stop() == 0
    return took_s


def without_numbers(ours: list[str]) -> list[str]:
    """Return what is ours without the kernel's numbers of programs, which each version has anew."""
    return sorted(re.sub(r"program[ =]\w+", "program", line) for line in ours)


@pytest.mark.parametrize("variant", IPTABLES)
def test_a_restore_that_outlives_its_killed_proxy_does_not_win_over_the_next_one(node, changing):
    """The proxy is dead, and its child is about to write what is outdated by then."""
    node.tools.forget()
    next(changing)
    after = f"until [ -e {node.folder}/ready ]; do sleep 0.05; done"
    node.tools.at(2, f'kill -9 $PPID; {after}; $real "$@"; touch {node.folder}/late; exit')
    assert node.start("--once").ended() == -signal.SIGKILL
    ours, answers = next(changing)
    node.tools.forget()
    node.ready()
    (node.folder / "ready").touch()
    until((node.folder / "late").exists, within_s=LONGEST_S, what="the late restore")
    until(lambda: node.ours() == ours, within_s=LONGEST_S, what="repaired")
    assert node.answers(answers) == []


def test_an_unchanged_start_writes_nothing(node):
    node.manifests.put("shop", OLD)
    node.once()
    before = node.generation(), node.ours()

    assert node.once() == 0
    assert (node.generation(), node.ours()) == before


def test_a_start_changes_only_what_differs(node, variant):
    node.manifests.put("shop", OLD)
    node.once()
    before = set(node.ours())
    node.manifests.put("more", both("more", "10.96.0.90", POD3))

    assert node.once() == (2 * RESTORES_OF_A_NEW_SERVICE if variant in IPTABLES else 0)
    assert len(before - set(node.ours())) < 10
    assert node.answers({**BEFORE, "10.96.0.90:80": words(POD3)}) == []
