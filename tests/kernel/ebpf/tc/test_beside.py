"""The tc programs beside the kernel's own translation of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.scene import Scene, as_is
from tests.support.ebpf.tc import Use, everyone
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

VIP, MASQUERADED_VIP = "10.96.0.1", "10.96.0.2"
TOOLS = {Family.IPV4: "iptables-nft", Family.IPV6: "ip6tables-nft"}
MANY = range(3000, 3040)  # ports that the kernel would take as they are, and so would we


@pytest.fixture(scope="module")
def whole_scene(bytecode: Path) -> Iterator[Scene]:
    """A node that masquerades by rules what its pods send to other nodes, as plugins have it."""
    made = Scene(as_is(bytecode))
    with made.network.node.entered():
        for family, tool in TOOLS.items():
            source, to = (in_family(c, family) for c in (plan.POD_CIDR, plan.FAR_POD_CIDR))
            rule = ["-A", "POSTROUTING", "-s", source, "-d", to, "-j", "MASQUERADE"]
            output_of(tool, "-w", "5", "-t", "nat", *rule, timeout_s=LONGEST_S)
    yield made
    made.close()


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_what_the_kernel_masquerades_finds_its_way_back(
    scene: Scene, family: Family, protocol: Protocol
):
    scene.frontend((VIP, 80), [plan.FAR1], everyone())
    scene.frontend((MASQUERADED_VIP, 80), [plan.FAR1], (Use(), Use(masquerade=True), Use()))
    to = (f"{VIP}:80", f"{MASQUERADED_VIP}:80", f"{plan.FAR1}:{PORT}")

    opened = [
        scene.open(pod, each, protocol, family) for pod in (plan.POD1, plan.POD2) for each in to
    ]

    for _ in range(2):
        assert {each.partner(quiet_s=0.5) for each in opened} == {plan.FAR1}


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_clients_that_the_node_masquerades_either_way_do_not_meet(
    scene: Scene, family: Family, protocol: Protocol
):
    scene.frontend((MASQUERADED_VIP, 80), [plan.FAR1], everyone(masquerade=True))

    opened = []
    for port in MANY:
        opened.append(scene.open(plan.CLIENT, f"{MASQUERADED_VIP}:80", protocol, family, port=port))
        opened.append(scene.open(plan.POD1, f"{plan.FAR1}:{PORT}", protocol, family))

    for _ in range(2):
        assert {each.partner(quiet_s=0.5) for each in opened} == {plan.FAR1}
