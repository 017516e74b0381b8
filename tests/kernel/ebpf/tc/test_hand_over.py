"""UDP flows that the kernel's own tracking translates: the tc programs leave them alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backends.ebpf.driver.flows import Flows
from backends.ebpf.unit import Unit
from backends.kernel import conntrack
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.objects import Protocol
from tests.kernel.ebpf.tc.test_beside import masquerading
from tests.support.commands import output_of
from tests.support.ebpf.scene import Scene, as_is
from tests.support.ebpf.tc import WITHDRAWN, unit
from tests.support.net import plan
from tests.support.net.plan import in_family
from tests.support.node.conversations import PORT, Conversation
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

VIP = "10.96.0.1"
CLIENT_PORT = 3200
QUIET_S = 0.15
KERNELS, OURS = plan.POD1, plan.FAR1  # where a client is led to, and by whom


@pytest.fixture(scope="module")
def whole_scene(bytecode: Path) -> Iterator[Scene]:
    """A node whose kernel translates what it tracks, as it has rules that do."""
    yield from masquerading(as_is(bytecode))


def unable_to_ask(whole: Unit) -> Unit:
    """Return programs that call functions which the kernel does not have."""
    programs = {
        name: dataclasses.replace(
            code, kfuncs={at: f"{asked}_of_no_kernel" for at, asked in code.kfuncs.items()}
        )
        for name, code in whole.programs.items()
    }
    return msgspec.structs.replace(whole, programs=programs)


@pytest.fixture(scope="module")
def unasking_scene(bytecode: Path) -> Iterator[Scene]:
    """A node whose kernel does not tell programs what it tracks."""
    yield from masquerading(lambda family: unable_to_ask(unit(family, bytecode)))


def ends(family: Family, client: str) -> list[str]:
    """Return how the tool says from where to where a client's flow goes."""
    source, to = (in_family(each, family) for each in (client, VIP))
    return ["-p", "udp", "-s", source, "-d", to, "--sport", str(CLIENT_PORT), "--dport", "80"]


def translate(scene: Scene, family: Family, client: str) -> Flow:
    """Have the kernel translate what a client will send to the frontend; return it as tracked."""
    to = in_family(KERNELS, family)
    to = f"{to}:{PORT}" if family is Family.IPV4 else f"[{to}]:{PORT}"
    made = ["-I", *ends(family, client), "--timeout", "600", "--dst-nat", to]
    wanted = Destinations(vips=frozenset({(in_family(VIP, family), 80)}))
    with scene.network.node.entered():
        output_of("conntrack", "-F", timeout_s=LONGEST_S)  # what tests before this one sent
        output_of("conntrack", *made, timeout_s=LONGEST_S)
        tracked, *_ = conntrack.list_udp(family, wanted)
    return tracked


def forget(scene: Scene, family: Family, client: str) -> None:
    """Have the kernel forget that flow, as it would a while after the last datagram."""
    with scene.network.node.entered():
        output_of("conntrack", "-D", *ends(family, client), timeout_s=LONGEST_S)


def handed_over(scene: Scene, family: Family, client: str) -> tuple[Conversation, Flows]:
    """Return a client's flow that the kernel translates, and what the programs leave alone."""
    flows = Flows(family, scene.tc[family].maps["flows"])
    assert flows.leave_alone([translate(scene, family, client)]) == 1
    scene.frontend((VIP, 80), [OURS])
    opened = scene.open(client, f"{VIP}:80", Protocol.UDP, family, port=CLIENT_PORT)
    for _ in range(2):
        assert opened.partner(quiet_s=scene.patience_s) == KERNELS
    return opened, flows


@pytest.mark.parametrize("client", [plan.CLIENT, plan.POD2, plan.NODE])
def test_a_flow_is_left_alone_until_the_kernel_forgets_it(
    scene: Scene, family: Family, client: str
):
    opened, flows = handed_over(scene, family, client)
    assert len(list(flows.left_alone())) == 1

    forget(scene, family, client)

    assert opened.partner(quiet_s=scene.patience_s) == OURS
    assert list(flows.left_alone()) == []


def test_withdrawn_programs_do_not_take_what_the_kernel_forgot(scene: Scene, family: Family):
    opened, _ = handed_over(scene, family, plan.CLIENT)
    scene.tc[family].settings(flags=WITHDRAWN)

    forget(scene, family, plan.CLIENT)

    assert opened.partner(quiet_s=QUIET_S) == "nobody"
    assert scene.tc[family].counts()["WITHDRAWN"] >= 1


def test_where_programs_cannot_ask_the_agent_lets_go(unasking_scene: Scene, family: Family):
    scene = unasking_scene
    opened, flows = handed_over(scene, family, plan.CLIENT)

    forget(scene, family, plan.CLIENT)

    assert opened.partner(quiet_s=QUIET_S) == "nobody"
    assert flows.forget_flows(flows.left_alone()) == 1
    assert opened.partner(quiet_s=scene.patience_s) == OURS


def test_what_the_kernel_tracks_in_a_zone_is_left_alone_until_the_agent_lets_go(
    scene: Scene, family: Family
):
    """Of zones programs cannot ask it: an answer would be about another flow."""
    tc = scene.tc[family]
    flows = Flows(family, tc.maps["flows"])
    tracked = translate(scene, family, plan.CLIENT)
    forget(scene, family, plan.CLIENT)
    scene.frontend((VIP, 80), [OURS])
    assert flows.leave_alone([tracked._replace(zone=7)]) == 1
    opened = scene.open(plan.CLIENT, f"{VIP}:80", Protocol.UDP, family, port=CLIENT_PORT)

    assert opened.partner(quiet_s=QUIET_S) == "nobody"
    assert tc.counts()["FLOW_LEFT_ALONE"] >= 1
    (listed,) = flows.left_alone()
    assert listed[:8] == tracked[:8]
    assert flows.forget_flows([listed]) == 1
    assert opened.partner(quiet_s=scene.patience_s) == OURS
