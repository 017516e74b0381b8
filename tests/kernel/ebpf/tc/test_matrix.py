"""Who gets where through the tc programs, and whom the endpoint sees: without socket hooks."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family, endpoint_text
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.tc import Tc, Use, unit
from tests.support.net import plan
from tests.support.net.network import Network, Pods
from tests.support.net.observed import Answered, Observed, Probe
from tests.support.net.plan import in_family
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

PORT = 8080
VIP_PORT = 80

CLIENTS = {"outside": plan.CLIENT, "pod1": plan.POD1, "pod2": plan.POD2, "pod3": plan.POD3}
ENDPOINTS = {
    "local pod": plan.POD1,
    "pod on a bridge": plan.POD3,
    "remote pod": plan.FAR1,
    "the node": plan.NODE_SECOND,
}
# By what the node masquerades packets to an endpoint. Nothing that stays here is masqueraded,
# unless the node itself sends it.
GATEWAY = {
    plan.POD1: plan.NODE_POD_SIDE,
    plan.POD3: plan.NODE_POD_SIDE,
    plan.FAR1: plan.NODE_SECOND,
}
CLUSTER_IP = dict(zip(ENDPOINTS, ("10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4"), strict=True))
NODE_PORT = dict(zip(ENDPOINTS, (30001, 30002, 30003, 30004), strict=True))
LOCAL_NODE_PORT = dict(zip(ENDPOINTS, (30011, 30012, 30013, 30014), strict=True))

FRONTENDS = [
    *[
        (CLUSTER_IP, name, (Use(masquerade=True), Use(), Use(masquerade=True)))
        for name in ENDPOINTS
    ],
    *[(NODE_PORT, name, (Use(masquerade=True),) * 3) for name in ENDPOINTS],
    *[(LOCAL_NODE_PORT, name, (Use(), Use(), Use(masquerade=True))) for name in ENDPOINTS],
]


MARK = 0x4000
RULES = (
    "-P FORWARD DROP",
    *[
        f"-A {chain} -m conntrack --ctstate INVALID -j DROP"
        for chain in ("INPUT", "OUTPUT", "FORWARD")
    ],
    f"-A FORWARD -m mark --mark {MARK}/{MARK} -j ACCEPT",
)


class Node(enum.Enum):
    """What else there is on the node."""

    ROUTED = "nothing"
    BRIDGED = "a bridge that all pods are joined by, and a strict look at sources"
    FILTERED = "rules that drop what is forwarded, unless it bears our mark, and what is invalid"


class Scene:
    """A node with the programs of both families and the frontends above."""

    def __init__(self, kind: Node, bytecode: Path) -> None:
        self.network = Network(Pods.BRIDGED if kind is Node.BRIDGED else Pods.ROUTED)
        if kind is Node.FILTERED:
            with self.network.node.entered():
                for tool, rule in itertools.product(("iptables-nft", "ip6tables-nft"), RULES):
                    output_of(tool, "-w", "5", *rule.split(), timeout_s=LONGEST_S)
        self.network.serve([PORT])
        self.tc = {family: Tc(family, unit(family, bytecode)) for family in Family}
        for number, tc in enumerate(self.tc.values(), start=1):
            tc.attach(self.network.node, priority=number)
            tc.settings(mark=MARK)
            for protocol, (places, name, uses) in itertools.product(Protocol, FRONTENDS):
                where = places[name]
                frontend = where if isinstance(where, int) else (where, VIP_PORT)
                tc.frontend(frontend, protocol, [(ENDPOINTS[name], PORT)], uses)

    def close(self) -> None:
        self.network.close()
        for tc in self.tc.values():
            tc.close()


@pytest.fixture(scope="module", params=Node, ids=lambda node: node.name.lower())
def scene(request: pytest.FixtureRequest, bytecode: Path) -> Iterator[Scene]:
    made = Scene(request.param, bytecode)
    yield made
    made.close()


def questions(family: Family) -> list[tuple[Probe, str, str]]:
    """Return what to send, which endpoint must answer, and whom it must see."""
    asked = []
    for (place, client), protocol, (places, name, uses) in itertools.product(
        {**CLIENTS, "node": plan.NODE, "loopback": plan.LOOPBACK}.items(), Protocol, FRONTENDS
    ):
        own = place in ("node", "loopback")
        where = places[name]
        if place == "loopback" and (not isinstance(where, int) or protocol is Protocol.SCTP):
            continue
        to = (plan.LOOPBACK if place == "loopback" else plan.NODE, where)
        if not isinstance(where, int):
            to = (where, VIP_PORT)
        origin = 2 if own else 0 if place == "outside" else 1
        endpoint = ENDPOINTS[name]
        masquerade = uses[origin].masquerade or endpoint == client
        seen = GATEWAY.get(endpoint, client) if masquerade else client
        if own and endpoint == ENDPOINTS["the node"]:
            seen = plan.NODE_VIP
        probe = Probe(in_family(client, family), in_family(to[0], family), to[1], protocol)
        asked.append((probe, in_family(endpoint, family), in_family(seen, family)))
    return asked


def said(observed: Observed) -> object:
    """Return who answered whom, without the client's port."""
    if not isinstance(observed, Answered):
        return observed
    return observed.by, observed.source.rpartition(":")[0].strip("[]")


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_every_client_reaches_every_endpoint_by_every_frontend(scene: Scene, family: Family):
    asked = questions(family)

    observed = scene.network.send([probe for probe, _, _ in asked])

    wrong = {
        str(probe): (said(one), (endpoint_text(by, PORT), seen))
        for (probe, by, seen), one in zip(asked, observed, strict=True)
        if said(one) != (endpoint_text(by, PORT), seen)
    }
    assert not wrong, f"{len(wrong)} of {len(asked)}, counted: {scene.tc[family].counts()}"
