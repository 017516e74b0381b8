"""UDP clients that keep one source port: conntrack would remember their old treatment for them."""

from __future__ import annotations

import errno
import itertools
import os
import re

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.net.plan import CLIENT, FAR1, NODE, POD1, POD2, POD3, in_family
from tests.support.node.cluster import both
from tests.support.node.conversations import PORT, Conversations
from tests.support.node.node import Node
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

CLUSTER_IP, NODE_PORT = "10.96.0.20:80", f"{NODE}:30020"
KINDS = [
    *itertools.product((CLIENT, POD3, NODE), (CLUSTER_IP,), Family),
    *itertools.product((CLIENT, POD3), (NODE_PORT,), Family),
]

# A client on the node itself is told by its own system call.
REFUSED = (
    str(OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))),
    str(OSError(errno.EPERM, os.strerror(errno.EPERM))),
)


def web(*endpoints: str):
    ports = (port(80, protocol="UDP", node_port=30020),)
    slice_ports = ({"name": "", "port": PORT, "protocol": "UDP"},)
    return both("web", "10.96.0.20", *endpoints, ports=ports, slice_ports=slice_ports)


@pytest.fixture
def talk(node):
    conversations = Conversations(node.network)
    conversations.serve(POD1, POD2, POD3, FAR1)
    yield conversations
    conversations.close()


@pytest.fixture
def flows(talk):
    """A flow from each kind of client to each kind of frontend, over both families."""
    return [talk.open(source, to, Protocol.UDP, family) for source, to, family in KINDS]


def all_meet(flows, *partners: str, **patience: float) -> bool:
    return all(flow.partner(**patience) in partners for flow in flows)


def until_all_meet(flows, *partners: str, what: str) -> None:
    until(lambda: all_meet(flows, *partners, quiet_s=0.3), within_s=LONGEST_S, what=what)


def test_flows_follow_when_their_endpoint_goes(node, flows):
    node.manifests.put("web", web(POD1))
    node.ready()
    assert all_meet(flows, POD1)
    node.manifests.put("web", web(POD2, FAR1))
    until_all_meet(flows, POD2, FAR1, what="they follow")


@pytest.mark.parametrize("gone", ["endpoints", "service"])
def test_flows_leave_an_endpoint_that_was_the_last_one(node, flows, gone):
    node.manifests.put("web", web(POD1))
    node.ready()
    assert all_meet(flows, POD1)
    if gone == "service":
        node.manifests.remove("web")
        until(
            lambda: all(flow.partner(quiet_s=0.3) != POD1 for flow in flows),
            within_s=LONGEST_S,
            what="they leave",
        )
    else:
        node.manifests.put("web", web())
        until_all_meet(flows, *REFUSED, what="they are refused")
    node.manifests.put("web", web(POD2))
    until_all_meet(flows, POD2, what="they come back")


def test_flows_from_before_the_first_rule_are_translated(node, flows):
    for family in Family:
        node.iptables(family, "-A FORWARD -m conntrack --ctstate INVALID -j DROP")
    assert not any(flow.partner(quiet_s=0.02) == POD1 for flow in flows)
    node.manifests.put("web", web(POD1))
    node.ready()
    until_all_meet(flows, POD1, what="they are translated")


def entries(node: Node, source_ports: set[int]) -> set[str]:
    """Return the kernel's own identifiers of the flows from these ports."""
    lines = [
        line
        for family in ("ipv4", "ipv6")
        for line in node.run(f"conntrack -L -f {family} -p udp -o id").splitlines()
    ]
    ports = {f"sport={number}" for number in source_ports}
    found = [line for line in lines if ports & set(line.split()[:8])]
    return {re.search(r"id=(\d+)", line)[1] for line in found}


def test_flows_that_are_not_ours_stay_untouched(node, talk, flows):
    """To the same port elsewhere, and to the same endpoint by a rule of somebody else."""
    for family in Family:
        to = f"-d {in_family(NODE, family)} --dport 9999"
        target = in_family(f"{POD1}:{PORT}", family)
        rule = f"-p udp {to} -j DNAT --to-destination {target}"
        node.iptables(family, f"-t nat -A PREROUTING {rule}")
    node.manifests.put("web", web(POD1))
    node.ready()
    foreign = [
        talk.open(CLIENT, to, Protocol.UDP, family)
        for to in (
            f"{FAR1}:30020",
            f"{FAR1}:80",
            f"{FAR1}:{PORT}",
            f"{POD1}:{PORT}",
            f"{NODE}:9999",
        )
        for family in Family
    ]
    assert all_meet(flows, POD1)
    met = [flow.partner() for flow in foreign]
    before = entries(node, {flow.source_port for flow in foreign})
    assert len(before) == len(foreign)

    node.manifests.put("web", web(POD2))
    until_all_meet(flows, POD2, what="ours follow")
    assert entries(node, {flow.source_port for flow in foreign}) == before
    assert [flow.partner() for flow in foreign] == met
