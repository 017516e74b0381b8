"""The tc programs beside the kernel's own translation of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.scene import Scene, Units, as_is
from tests.support.ebpf.tc import Use, everyone
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

VIP, MASQUERADED_VIP = "10.96.0.1", "10.96.0.2"
TOOLS = {Family.IPV4: "iptables-nft", Family.IPV6: "ip6tables-nft"}
MANY = range(3000, 3020)  # ports that the kernel would take as they are, and so would we
TAKEN, UNLIKE_IT = 3100, 3101
QUIET_S = 0.15


@pytest.fixture(scope="module")
def whole_scene(bytecode: Path) -> Iterator[Scene]:
    """A node that masquerades by rules what its pods send to other nodes, as plugins have it."""
    yield from masquerading(as_is(bytecode))


def masquerading(units: Units) -> Iterator[Scene]:
    """Yield a node that has such rules, and take it down."""
    made = Scene(units)
    masquerade_by_rules(made)
    yield made
    made.close()


def masquerade_by_rules(scene: Scene) -> None:
    with scene.network.node.entered():
        for family, tool in TOOLS.items():
            source, to = (in_family(c, family) for c in (plan.POD_CIDR, plan.FAR_POD_CIDR))
            rule = ["-A", "POSTROUTING", "-s", source, "-d", to, "-j", "MASQUERADE"]
            output_of(tool, "-w", "5", "-t", "nat", *rule, timeout_s=LONGEST_S)


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
        assert {each.partner(quiet_s=scene.patience_s) for each in opened} == {plan.FAR1}


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_clients_that_the_node_masquerades_either_way_do_not_meet(
    scene: Scene, family: Family, protocol: Protocol
):
    """The kernel has the port of each already when ours would be given the same."""
    scene.frontend((MASQUERADED_VIP, 80), [plan.FAR1], everyone(masquerade=True))

    opened = []
    for port in MANY:
        opened.append(scene.open(plan.POD1, f"{plan.FAR1}:{PORT}", protocol, family, port=port))
        assert opened[-1].partner(quiet_s=scene.patience_s) == plan.FAR1
        opened.append(scene.open(plan.CLIENT, f"{MASQUERADED_VIP}:80", protocol, family, port=port))

    for _ in range(2):
        assert {each.partner(quiet_s=scene.patience_s) for each in opened} == {plan.FAR1}


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_who_is_masqueraded_by_the_port_of_an_open_flow_gets_another(
    scene: Scene, family: Family, protocol: Protocol
):
    """The kernel does not know that flow: as it chose at random, it does again."""
    scene.frontend((MASQUERADED_VIP, 80), [plan.FAR1], everyone(masquerade=True))
    ours = scene.open(plan.CLIENT, f"{MASQUERADED_VIP}:80", protocol, family, port=TAKEN)
    assert ours.partner(quiet_s=scene.patience_s) == plan.FAR1

    track(scene, family, protocol)
    theirs = scene.open(plan.POD1, f"{plan.FAR1}:{PORT}", protocol, family, port=UNLIKE_IT)

    until(
        lambda: {each.partner(quiet_s=0.1) for each in (ours, theirs)} == {plan.FAR1},
        within_s=scene.patience_s,
        what="both are answered",
    )


def test_who_chose_the_port_of_an_open_flow_by_itself_is_left_alone(scene: Scene, family: Family):
    scene.frontend((MASQUERADED_VIP, 80), [plan.FAR1], everyone(masquerade=True))
    ours = scene.open(plan.CLIENT, f"{MASQUERADED_VIP}:80", Protocol.TCP, family, port=UNLIKE_IT)
    assert ours.partner(quiet_s=scene.patience_s) == plan.FAR1

    straight = scene.socket(plan.NODE_SECOND, family, port=UNLIKE_IT)
    straight.setblocking(False)
    straight.connect_ex((in_family(plan.FAR1, family), PORT))

    assert "PORT_TAKEN" not in scene.tc[family].counts()
    assert ours.partner(quiet_s=scene.patience_s) == plan.FAR1


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_what_goes_to_a_service_address_that_nobody_has_passes_as_an_answer_alone(
    scene: Scene, family: Family, protocol: Protocol
):
    tc = scene.tc[family]
    client = tc.packed(plan.CLIENT)
    key = family.bits.to_bytes(4, "little") + client
    tc.maps["unclaimed_networks"].update(key, b"\2")
    tc.claims.add_networks([(client, family.bits)])

    try:
        asked = scene.open(plan.CLIENT, f"{plan.POD1}:{PORT}", protocol, family)
        assert asked.partner(quiet_s=scene.patience_s) == plan.POD1
        assert "UNCLAIMED_ADDRESS" not in tc.counts()
        opens = scene.open(plan.NODE, f"{plan.CLIENT}:{PORT}", protocol, family)
        assert opens.partner(quiet_s=QUIET_S) == "nobody"
        assert "UNCLAIMED_ADDRESS" in tc.counts()
    finally:
        tc.maps["unclaimed_networks"].delete(key)


def track(scene: Scene, family: Family, protocol: Protocol) -> None:
    """Have the kernel masquerade what a pod will send to another by the port TAKEN."""
    source, to, node = (
        in_family(each, family) for each in (plan.POD1, plan.FAR1, plan.NODE_SECOND)
    )
    ends = ["-s", source, "-d", to, "--sport", str(UNLIKE_IT), "--dport", str(PORT)]
    by = f"{node}:{TAKEN}" if family is Family.IPV4 else f"[{node}]:{TAKEN}"
    state = ["--state", "SYN_SENT"] if protocol is Protocol.TCP else []
    made = ["-I", "-p", protocol.value.lower(), "--timeout", "60", *state, "--src-nat", by]
    with scene.network.node.entered():
        output_of("conntrack", *made, *ends, timeout_s=LONGEST_S)
