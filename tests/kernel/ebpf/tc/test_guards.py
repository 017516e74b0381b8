"""Each guard of the tc programs, taken away in the source: then a test of it must fail.

A guard that nothing fails without is either not tested or not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.ebpf.compiler import flatten, load_unit
from backends.ebpf.unit import Unit
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.ebpf.tc import (
    test_beside,
    test_expiry,
    test_flows,
    test_foreign,
    test_hand_over,
    test_load,
    test_shared_ports,
)
from tests.support.ebpf.scene import Scene
from tests.support.ebpf.tc import SOURCE, unit
from tests.support.net import plan

pytestmark = pytest.mark.kernel

V4 = Family.IPV4


@dataclass(frozen=True, slots=True)
class Guard:
    """What is replaced in the source, and the test that notices it."""

    text: str
    without: str
    test: Callable[[Scene], None]
    change: Callable[[Unit], Unit] | None = None  # of the programs, for that test


def beside_rules(
    test: Callable[[Scene, Family, Protocol], None],
    scene: Scene,
    protocol: Protocol = Protocol.TCP,
) -> None:
    test_beside.masquerade_by_rules(scene)
    test(scene, V4, protocol)


def handed_over(test: Callable[..., None], scene: Scene, *client: str) -> None:
    test_beside.masquerade_by_rules(scene)
    test(scene, V4, *client)


GUARDS = {
    "a flow's entries die together": Guard(
        "\t\tdelete_side(flow, STACK_SIDE, protocol);\n",
        "\t\t;\n",
        lambda scene: test_flows.test_a_port_is_used_again_at_once_and_meets_another_endpoint(
            scene, V4, "client"
        ),
    ),
    "a flow that lost an entry is over": Guard(
        "if (!client_side || !far || client_side->state & STATE_CLOSING)",
        "if (!far)\n\t\treturn 0;\n\tif (!client_side || client_side->state & STATE_CLOSING)",
        lambda scene: test_flows.test_a_flow_that_lost_a_part_makes_room_for_the_next(scene, V4),
    ),
    "no two flows have one port on the node": Guard(
        "return flows.insert(&key, draft);",
        "return flows.update(&key, draft);",
        lambda scene: test_flows.test_two_masqueraded_clients_may_use_the_same_port(
            scene, V4, plan.CLIENT
        ),
    ),
    "no two flows look the same in the stack": Guard(
        "#define PORT_TRIES 24",
        "#define PORT_TRIES 1",
        lambda scene: (
            test_flows.test_a_client_may_use_its_port_towards_two_frontends_of_one_endpoint(
                scene, V4, plan.CLIENT
            )
        ),
    ),
    "a masqueraded port is no socket's": Guard(
        "return is_socket_at(skb, from_endpoint, protocol) ||",
        "return",
        lambda scene: test_flows.test_a_masqueraded_port_is_no_sockets_of_the_host_and_no_node_port(
            scene, V4
        ),
    ),
    "a masqueraded port is none that the kernel masquerades by": Guard(
        "tracking_of(skb, from_endpoint, protocol) > NOT_TRACKED;",
        "0;",
        lambda scene: beside_rules(
            test_beside.test_clients_that_the_node_masquerades_either_way_do_not_meet, scene
        ),
    ),
    "what the kernel masquerades by an open flow's port is nobody's": Guard(
        "forget_masqueraded(skb, &packet.ends, packet.protocol))",
        "0)",
        lambda scene: beside_rules(
            test_beside.test_who_is_masqueraded_by_the_port_of_an_open_flow_gets_another, scene
        ),
    ),
    "the kernel chooses another port once it forgot": Guard(
        "bpf_ct_change_timeout(connection, 0);",
        "bpf_ct_change_timeout(connection, 60000);",
        lambda scene: beside_rules(
            test_beside.test_who_is_masqueraded_by_the_port_of_an_open_flow_gets_another, scene
        ),
    ),
    "what the kernel did not masquerade is not forgotten": Guard(
        "if (tracking_of(skb, ends, protocol) > NOT_TRACKED)",
        "if (0)",
        lambda scene: beside_rules(
            lambda scene, family, _: (
                test_beside.test_who_chose_the_port_of_an_open_flow_by_itself_is_left_alone(
                    scene, family
                )
            ),
            scene,
        ),
    ),
    "what the kernel translates is left alone": Guard(
        "return tracking_of(skb, &from_endpoint, protocol) == NOT_TRACKED;",
        "return tracking_of(skb, &from_endpoint, protocol) || 1;",
        lambda scene: handed_over(
            test_hand_over.test_a_flow_is_left_alone_until_the_kernel_forgets_it, scene, plan.CLIENT
        ),
    ),
    "what the kernel forgot is left alone no longer": Guard(
        "return tracking_of(skb, &from_endpoint, protocol) == NOT_TRACKED;",
        "return tracking_of(skb, &from_endpoint, protocol) && 0;",
        lambda scene: handed_over(
            test_hand_over.test_a_flow_is_left_alone_until_the_kernel_forgets_it, scene, plan.CLIENT
        ),
    ),
    "what the node sends untranslated is not what the kernel translated": Guard(
        "struct ends from_endpoint = reverse_ends(flow, ENDPOINT_SIDE);\n\n",
        "struct ends from_endpoint = forward_ends(flow, CLIENT_SIDE);\n\n",
        lambda scene: handed_over(
            test_hand_over.test_a_flow_is_left_alone_until_the_kernel_forgets_it, scene, plan.NODE
        ),
    ),
    "a kernel that cannot be asked did not forget": Guard(
        "return opts.error == -ENOENT ? NOT_TRACKED : TRACKING_UNKNOWN;",
        "return NOT_TRACKED;",
        lambda scene: handed_over(
            test_hand_over.test_where_programs_cannot_ask_the_agent_lets_go, scene
        ),
        change=test_hand_over.unable_to_ask,
    ),
    "what made room opens nothing where new ones pass": Guard(
        "return without_flow(skb, &packet, work->at_egress);",
        "stages.call(skb, STAGE_CHOOSE);\n\t\treturn done(STAGE_MISSING);",
        lambda scene: test_flows.test_withdrawn_a_port_that_is_used_again_is_no_flow_of_ours(
            scene, V4
        ),
    ),
    "answers go to clients with addresses of Services": Guard(
        "== TRACKED_BACK;",
        "== TRACKED_BACK && 0;",
        lambda scene: beside_rules(
            test_beside.test_what_goes_to_a_service_address_that_nobody_has_passes_as_an_answer_alone,
            scene,
            Protocol.UDP,
        ),
    ),
    "what the kernel tracks is no answer by that": Guard(
        "== TRACKED_BACK;",
        "!= NOT_TRACKED;",
        lambda scene: beside_rules(
            test_beside.test_what_goes_to_a_service_address_that_nobody_has_passes_as_an_answer_alone,
            scene,
            Protocol.UDP,
        ),
    ),
    "a masqueraded port is no NodePort": Guard(
        "return frontends.lookup(&node_port) != NULL;",
        "return frontends.lookup(&node_port) && 0;",
        lambda scene: test_flows.test_a_masqueraded_port_is_no_sockets_of_the_host_and_no_node_port(
            scene, V4
        ),
    ),
    "no view has two equal ends": Guard(
        "if (is_mirror(draft, &draft->client, draft->stack_port))",
        "if (0)",
        lambda scene: test_flows.test_a_pod_reaches_itself_from_the_very_port_that_it_serves(
            scene, V4
        ),
    ),
    "an embedded header is translated": Guard(
        "failed = error ? rewrite_error(skb, error, packet, &ends) :",
        "failed = error ? rewrite_packet(skb, error, &error->ends) :",
        lambda scene: test_flows.test_an_endpoint_that_does_not_listen_refuses_as_the_frontend(
            scene, V4, plan.CLIENT
        ),
    ),
    "only a reset in window ends a flow": Guard(
        "return packet->sequence - receiver->acknowledged <= receiver->window << WINDOW_SCALE;",
        "return 1;",
        lambda scene: test_load.test_a_reset_ends_a_flow_only_if_its_receiver_would_believe_it(
            scene, V4, "outside"
        ),
    ),
    "each direction's acknowledgments are kept apart": Guard(
        "flow->side == senders_side(flow, forward)",
        "1",
        lambda scene: test_flows.test_a_client_that_resets_may_use_its_port_again(
            scene, V4, plan.POD2, False
        ),
    ),
    "a closing flow makes room": Guard(
        "client_side->state & STATE_CLOSING)\n\t\treturn 1;",
        "0)\n\t\treturn 1;",
        lambda scene: test_flows.test_a_port_is_used_again_at_once_and_meets_another_endpoint(
            scene, V4, "server"
        ),
    ),
    "a flow that nobody answers makes room": Guard(
        "(__s32)(client_side->stamp - far->stamp) > UNANSWERED;",
        "0;",
        lambda scene: (
            test_flows.test_a_client_whose_reset_was_lost_is_not_kept_at_an_endpoint_that_is_gone(
                scene, V4
            )
        ),
    ),
    "a flood takes half-open flows alone": Guard(
        "return !(client_side->state & open);",
        "return 1 | open;",
        lambda scene: test_load.test_a_flood_of_openings_costs_no_open_flow_and_no_sane_client(
            scene, V4
        ),
        change=test_load.with_few_flows,
    ),
    "a full map gives up half-open flows": Guard(
        "if (remembered <= 0)\n\t\t\treturn 0;",
        "return 0;",
        lambda scene: test_load.test_a_flood_of_openings_costs_no_open_flow_and_no_sane_client(
            scene, V4
        ),
        change=test_load.with_few_flows,
    ),
    "the client's side knows what others see": Guard(
        "\tif (client_side)\n\t\tset_bits(&client_side->state, seen);",
        "\t(void)client_side;",
        lambda scene: test_expiry.test_a_flow_goes_as_a_whole_after_its_time(
            scene, V4, True, plan.CLIENT, 3
        ),
    ),
    "a port that the kernel gave to others is theirs": Guard(
        "return at_egress && !(skb->tc_index & TRANSLATED);",
        "return 0;",
        lambda scene: test_shared_ports.test_the_port_of_a_closed_flow_belongs_to_who_opens_by_it(
            scene, V4, plan.CLIENT
        ),
    ),
    "a port of datagrams that the kernel gave to others is theirs": Guard(
        "return flow->side == ENDPOINT_SIDE || flow->flags & FLOW_TRACKED;",
        "return flow->flags & FLOW_TRACKED;",
        lambda scene: test_shared_ports.test_the_port_of_a_silent_client_belongs_to_who_sends_by_it(
            scene, V4, plan.CLIENT
        ),
    ),
    "what the programs gave a port to is known by a note": Guard(
        "skb->tc_index |= TRANSLATED;",
        ";",
        lambda scene: (
            test_shared_ports.test_what_waits_on_its_way_out_is_not_taken_for_somebody_elses(scene)
        ),
    ),
    "the port of an open flow is its own": Guard(
        "return client_side->state & STATE_ACKNOWLEDGED &&",
        "return 1 ||",
        lambda scene: test_shared_ports.test_an_open_flow_is_not_cut_by_who_opens_by_its_port(
            scene, V4, plan.CLIENT
        ),
    ),
    "nothing is foreign before all claims are in": Guard(
        "if (!is_set(CLAIMS_COMPLETE, 0) || ",
        "if (",
        lambda scene: test_foreign.test_without_all_claims_nothing_is_foreign(scene, V4),
    ),
    "who has flows may be answered by endpoints": Guard(
        "claim_client(&work->draft.client);",
        ";",
        lambda scene: (
            test_foreign.test_what_goes_straight_to_endpoints_is_looked_at_while_its_client_has_flows(
                scene, V4
            )
        ),
    ),
    "what goes to an endpoint is looked at where it leaves": Guard(
        "return to ? FOREIGN_HERE : FOREIGN_EVERYWHERE;",
        "return FOREIGN_EVERYWHERE;",
        lambda scene: (
            test_shared_ports.test_the_port_of_a_closed_flow_belongs_to_who_is_masqueraded_by_it(
                scene, V4
            )
        ),
    ),
    "what the node sends is not foreign to it": Guard(
        "if (skb->ingress_ifindex && foreignness_of(skb) != MAYBE_OURS)",
        "if (foreignness_of(skb) != MAYBE_OURS)",
        lambda scene: test_foreign.test_what_the_node_sends_by_loopback_is_looked_at(scene, V4),
    ),
}


def without(guard: Guard, folder: Path, bytecode: Path) -> Callable[[Family], Unit]:
    """Return programs that lack a guard, in IPv4."""
    text = flatten(SOURCE)
    assert text.count(guard.text) == 1, "the guard is not where it was"
    mutant = folder / SOURCE.name
    mutant.write_text(text.replace(guard.text, guard.without))

    def units(family: Family) -> Unit:
        made = load_unit(mutant, family, cache=bytecode) if family is V4 else unit(family, bytecode)
        return guard.change(made) if guard.change else made

    return units


@pytest.mark.parametrize("name", GUARDS)
def test_without_a_guard_its_test_fails(name: str, tmp_path: Path, bytecode: Path):
    guard = GUARDS[name]
    scene = Scene(without(guard, tmp_path, bytecode))
    scene.patience_s = 1.0
    try:
        with pytest.raises((AssertionError, OSError)):
            guard.test(scene)
    finally:
        scene.close()
