"""The kernel or a tool refuses: what was in force stays, one family does not stop the other."""

from __future__ import annotations

import contextlib
import os

import pytest

from kproxy.core.addresses import Family
from tests.support.net.plan import NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.node import IPTABLES, LEFT, REFUSED, STEM, Node
from tests.support.node.tools import HANG, HOLD_IF_REFUSED, REFUSE
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

# What a refusal does elsewhere, the contract of data paths says.
pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("variant", IPTABLES)]

WITH_PROBLEMS = 3

BUSY_PORTS = (port(80, node_port=30040),)
OLD = (
    *both("steady", "10.96.0.10", POD2),
    *both("pinned", "10.96.0.20", POD1),
    *both("busy", "10.96.0.40", POD1, ports=BUSY_PORTS),
    *both("moving", "10.96.0.50", POD1),
)
NEW = (
    *both("steady", "10.96.0.10", POD2),
    *both("busy", "10.96.0.40", ports=BUSY_PORTS),
    *both("moving", "10.96.0.50", POD3),
)
BEFORE = {
    "10.96.0.10:80": frozenset({POD2}),
    "10.96.0.20:80": frozenset({POD1}),
    "10.96.0.40:80": frozenset({POD1}),
    f"{NODE}:30040": frozenset({POD1}),
    "10.96.0.50:80": frozenset({POD1}),
}
AFTER = {
    "10.96.0.10:80": frozenset({POD2}),
    "10.96.0.20:80": frozenset({LEFT}),
    "10.96.0.40:80": frozenset({REFUSED}),
    f"{NODE}:30040": frozenset({REFUSED}),
    "10.96.0.50:80": frozenset({POD3}),
}


@pytest.fixture
def proxy(node):
    node.manifests.put("shop", OLD)
    return node.ready()


def eventually(node: Node, answers: dict[str, frozenset[str]], *families: Family) -> None:
    """Wait until all of these answers come."""
    how = {"families": families or tuple(Family)}
    until(
        lambda: node.answers(answers, **how) == [],
        within_s=LONGEST_S,
        what=lambda: f"the new answers; these are wrong: {node.answers(answers, **how)}",
    )


def pin(node: Node, family: Family) -> None:
    """Let a foreign rule refer to the chain of a Service, so that the kernel will not remove it."""
    lines = node.iptables(family, "-save -t nat").splitlines()
    chain = next(line for line in lines if "10.96.0.20/32" in line or "fd00:96::20/128" in line)
    name = chain.split()[-1]
    node.iptables(family, "-restore --noflush", text=f"*nat\n:PIN -\n-A PIN -j {name}\nCOMMIT\n")


def test_nat_that_is_refused_after_filter_was_accepted_leaves_the_old_answers(node, proxy):
    for family in Family:
        pin(node, family)
        node.tools.always(STEM[family], HOLD_IF_REFUSED)
    node.manifests.put("shop", NEW)
    # It would soon try again, and find out what is to blame and that all the rest can be had.
    until(proxy.is_held, within_s=LONGEST_S, what="a restore is refused")
    assert node.answers(BEFORE) == []

    for family in Family:
        node.tools.leave_alone(STEM[family])
    proxy.let_go()
    for family in Family:
        proxy.wait_for(f"{family.value}: the kernel refused")
        node.iptables(family, "-t nat -F PIN")
    eventually(node, AFTER)
    for family in Family:
        proxy.wait_for(f"{family.value}: works again")


@pytest.mark.parametrize("stem", ["iptables", "ip6tables"])
def test_a_family_whose_tool_fails_does_not_stop_the_other(node, proxy, stem):
    failing, working = list(Family) if stem == "iptables" else list(Family)[::-1]
    node.tools.always(stem, REFUSE)
    node.manifests.put("shop", NEW)
    proxy.wait_for(f"{failing.value}: the kernel refused")
    eventually(node, AFTER, working)
    assert node.answers(BEFORE, families=(failing,)) == []

    node.tools.leave_alone(stem)
    eventually(node, AFTER)


@pytest.fixture
def gate(node):
    """A pipe that nobody writes to before the test ends."""
    path = node.folder / "gate"
    os.mkfifo(path)
    yield path
    for stem in STEM.values():
        node.tools.leave_alone(stem)
    with contextlib.suppress(OSError):  # nobody waits any more
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("hanging", Family, ids=lambda family: family.value)
def test_a_family_whose_tool_hangs_holds_up_nobody_else(node, proxy, gate, hanging):
    (working,) = set(Family) - {hanging}
    node.tools.always(STEM[hanging], HANG.format(gate=gate))
    node.manifests.put("shop", NEW)
    eventually(node, AFTER, working)
    node.manifests.put("shop", OLD)
    eventually(node, BEFORE, working)
    assert node.answers(BEFORE, families=(hanging,)) == [], "it was never written"


@pytest.mark.parametrize("hanging", Family, ids=lambda family: family.value)
def test_a_first_write_that_hangs_holds_up_nobody_else(node, gate, hanging):
    (working,) = set(Family) - {hanging}
    node.tools.always(STEM[hanging], HANG.format(gate=gate))
    node.manifests.put("shop", OLD)
    node.start()
    eventually(node, BEFORE, working)
    node.manifests.put("shop", NEW)
    eventually(node, AFTER, working)


def test_a_family_that_fails_from_the_start_is_told_and_the_other_is_served(node):
    node.tools.always("ip6tables", REFUSE)
    node.manifests.put("shop", OLD)
    once = node.start("--once")
    assert once.ended() == WITH_PROBLEMS, once.said()
    assert node.answers(BEFORE, families=(Family.IPV4,)) == []
    assert "the test refuses" in once.said()

    proxy = node.ready()
    assert "in the kernel for IPv4," in proxy.said()
    node.tools.leave_alone("ip6tables")
    eventually(node, BEFORE)


def test_settings_that_come_with_connection_tracking_are_tried_when_rules_are_in_force(node):
    """In a network namespace the kernel lets nobody set this one, as if it were not there yet."""
    node.configure(conntrack={"maxPerCore": 1, "min": 1})
    for stem in ("iptables", "ip6tables"):
        node.tools.always(stem, REFUSE)
    node.manifests.put("shop", OLD)
    proxy = node.start()
    proxy.wait_for("nf_conntrack_max cannot be set to ")
    proxy.wait_for("not ready: the kernel refused every IP family")
    assert "going on without" not in proxy.said()

    node.tools.leave_alone("iptables")
    proxy.wait_for("; going on without")
    assert proxy.said().count("; going on without") == 1


# The programs are links in one folder, and it is shadowed by one that lacks some.
WITHOUT_IP6TABLES = """
mount --bind /usr/sbin /mnt && mount -t tmpfs none /usr/sbin || exit 9
for each in /mnt/*; do
    case $each in */ip6tables*) ;; *) ln -s $each /usr/sbin/;; esac
done
rm -f $1/ip6tables*
shift
exec "$@"
"""


def test_a_family_whose_tools_are_not_installed_does_not_stop_the_other(node):
    node.manifests.put("shop", OLD)
    tools = str(node.tools.folder)
    proxy = node.start(prefix=("unshare", "--mount", "sh", "-c", WITHOUT_IP6TABLES, "sh", tools))
    proxy.wait_for("is not installed (Debian package iptables)")
    eventually(node, BEFORE, Family.IPV4)
    node.manifests.put("shop", NEW)
    eventually(node, AFTER, Family.IPV4)
