"""Which UDP flows are stale, decided on plain data."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from kproxy.core.flows import UdpFlows
from kproxy.core.objects import Protocol
from kproxy.core.table import TableChanges
from tests.support.flows import (
    NODE,
    NODE_PORT,
    OTHER_VIP,
    SECOND,
    VIP,
    A,
    B,
    C,
    change,
    flow,
    key,
    rules,
    service_port,
    settled,
    stale,
)

BOTH = (VIP, NODE_PORT)
AT_NODE = (NODE, NODE_PORT)
FOREIGN = ("172.16.0.9", 9)


def running(*places, endpoints=(A, B), at=None) -> UdpFlows:
    """Return the flows of a proxy that runs a service and has cleaned up once."""
    return settled(change(service_port(places or BOTH, endpoints), rules=at or rules()))


def test_nothing_is_needed_before_any_table():
    assert not UdpFlows().needed


def test_the_kernel_need_not_be_asked_while_nothing_of_udp_changed():
    flows = running()
    flows.apply(change(service_port([VIP], [A], of=key("web", Protocol.TCP))))
    flows.apply(change(service_port(BOTH, [A, B])))
    flows.apply(change(rules=rules()))

    assert not flows.needed
    assert not flows.suspects


def test_an_endpoint_that_joins_others_makes_no_flow_stale():
    flows = running(endpoints=[A])
    flows.apply(change(service_port(BOTH, [A, B])))

    assert not flows.needed


def test_flows_to_an_endpoint_that_left_go_and_the_others_stay():
    flows = running()
    flows.apply(change(service_port(BOTH, [B])))
    left = [flow(VIP, A), flow(AT_NODE, A)]

    assert flows.needed
    assert stale(flows, *left, flow(VIP, B), flow(AT_NODE, B)) == left


def test_a_port_of_an_endpoint_that_left_is_not_confused_with_another():
    flows = running(endpoints=[A, (A[0], 5354)])
    flows.apply(change(service_port(BOTH, [A])))

    assert stale(flows, flow(VIP, A), flow(VIP, (A[0], 5354))) == [flow(VIP, (A[0], 5354))]


def test_an_endpoint_that_serves_while_no_connection_is_sent_to_it_keeps_its_flows():
    flows = running()
    flows.apply(change(service_port(BOTH, [A, B], used=[B])))

    assert stale(flows, flow(VIP, A), flow(AT_NODE, A)) == []


def test_an_endpoint_in_use_keeps_its_flows_although_it_is_not_serving():
    flows = running(endpoints=[A, B, C])
    flows.apply(change(service_port(BOTH, [B], used=[A, B])))

    assert stale(flows, flow(VIP, A), flow(VIP, C)) == [flow(VIP, C)]


@pytest.mark.parametrize("gone", ["endpoints", "service"])
def test_all_translated_flows_go_with_the_last_endpoint_or_the_service(gone):
    flows = running()
    flows.apply(change(service_port(BOTH, [])) if gone == "endpoints" else change(gone=[key()]))
    ours = [flow(VIP, A), flow(VIP, B), flow(AT_NODE, A)]

    assert stale(flows, *ours, flow(AT_NODE, FOREIGN)) == ours


def test_untranslated_flows_go_where_a_frontend_has_no_endpoint_and_stay_where_none_is():
    flows = running()
    flows.apply(change(service_port(BOTH, [])))
    assert stale(flows, flow(VIP), flow(AT_NODE)) == [flow(VIP), flow(AT_NODE)]

    flows.apply(change(gone=[key()]))
    assert stale(flows, flow(VIP), flow(AT_NODE)) == []


def test_flows_that_were_opened_before_a_frontend_came_go():
    flows = settled(change(rules=rules()))
    flows.apply(change(service_port(BOTH, [A])))

    assert stale(flows, flow(VIP), flow(AT_NODE)) == [flow(VIP), flow(AT_NODE)]


def test_flows_opened_before_the_first_endpoint_came_go():
    flows = running(endpoints=[])
    flows.apply(change(service_port(BOTH, [A])))

    assert stale(flows, flow(VIP)) == [flow(VIP)]


def test_an_endpoint_on_the_node_itself_at_the_node_ports_number_is_in_order():
    flows = settled(change(rules=rules()))
    flows.apply(change(service_port(BOTH, [AT_NODE, A])))

    assert stale(flows, flow(AT_NODE, AT_NODE)) == []


@pytest.mark.parametrize("at", [("203.0.113.200", NODE_PORT), (NODE, NODE_PORT + 1)])
def test_a_node_ports_number_alone_proves_nothing(at):
    flows = running()
    flows.apply(change(service_port(BOTH, [])))

    assert stale(flows, flow(at), flow(at, A)) == []


def test_what_somebody_else_translated_at_a_node_port_stays():
    flows = running()
    flows.apply(change(service_port(BOTH, [])))

    assert stale(flows, flow(AT_NODE, FOREIGN)) == []


@pytest.mark.parametrize(
    ("why", "at", "held", "other"),
    [
        ("outside nodePortAddresses", rules(["192.0.2.0/24"]), NODE, SECOND),
        ("loopback where it is off", rules(localhost=False), NODE, "127.0.0.1"),
        ("loopback alone", rules(["127.0.0.0/8"]), "127.0.0.2", NODE),
        ("a part of loopback", rules(localhost="127.0.2.0/28"), "127.0.2.1", "127.0.0.1"),
    ],
)
def test_flows_go_only_where_node_ports_hold(why, at, held, other):
    flows = settled(change(rules=at))
    flows.apply(change(service_port(BOTH, [A])))
    candidates = [flow((held, NODE_PORT)), flow((other, NODE_PORT))]

    assert stale(flows, *candidates) == candidates[:1], why


def test_nothing_at_the_ipv6_loopback_address_is_ours():
    everywhere = replace(rules(), node_port_addresses=(ipaddress.ip_network("::/0"),))
    flows = settled(change(rules=everywhere))
    flows.apply(change(service_port(BOTH, [A])))

    assert stale(flows, flow(("::1", NODE_PORT))) == []


def test_translated_flows_go_where_node_ports_hold_no_longer():
    flows = running()
    flows.apply(change(rules=rules(["192.0.2.0/24"], localhost=False)))
    withdrawn = [flow((SECOND, NODE_PORT), A), flow(("127.0.0.1", NODE_PORT), B)]
    candidates = [*withdrawn, flow((SECOND, NODE_PORT)), flow((SECOND, NODE_PORT), FOREIGN)]

    assert stale(flows, *candidates, flow(AT_NODE, A)) == withdrawn


def test_an_endpoint_that_left_before_node_ports_ceased_to_hold_is_remembered():
    flows = running()
    flows.apply(change(service_port(BOTH, [B])))
    flows.apply(change(rules=rules(["192.0.2.0/24"])))

    assert stale(flows, flow((SECOND, NODE_PORT), A)) == [flow((SECOND, NODE_PORT), A)]


def test_untranslated_flows_go_where_node_ports_begin_to_hold():
    flows = running(at=rules(["192.0.2.0/24"]))
    flows.apply(change(rules=rules()))

    assert stale(flows, flow((SECOND, NODE_PORT)), flow(AT_NODE, A)) == [flow((SECOND, NODE_PORT))]


def test_a_frontend_that_was_given_up_takes_its_translated_flows_along():
    flows = running(VIP, OTHER_VIP, NODE_PORT)
    flows.apply(change(service_port([VIP], [A, B])))
    lost = [flow(OTHER_VIP, A), flow(AT_NODE, B)]

    assert stale(flows, flow(VIP, A), *lost, flow(OTHER_VIP), flow(OTHER_VIP, FOREIGN)) == lost


def test_a_frontend_that_changes_owner_keeps_only_flows_to_the_new_owners_endpoints():
    flows = running(endpoints=[A, B])
    flows.apply(change(service_port(BOTH, [B, C], of=key("new")), gone=[key()]))
    left = [flow(VIP, A), flow(AT_NODE, A)]

    assert stale(flows, *left, flow(VIP, B), flow(AT_NODE, B), flow(AT_NODE, FOREIGN)) == left


def test_changes_add_up_until_a_clean_up_succeeds():
    flows = running()
    flows.apply(change(service_port(BOTH, [B])))
    flows.apply(change(service_port(BOTH, [C])))
    flows.apply(change(gone=[key()]))
    ours = [flow(to, answers) for to in (VIP, AT_NODE) for answers in (A, B, C)]
    assert stale(flows, *ours) == ours

    flows.apply(change(service_port(BOTH, [B])))
    in_order = [flow(VIP, B), flow(AT_NODE, B)]
    assert stale(flows, *ours) == [each for each in ours if each not in in_order]


def test_nothing_is_remembered_past_a_clean_up():
    flows = running()
    flows.apply(change(gone=[key()]))
    flows.settled()

    assert not flows.needed
    assert stale(flows, flow(VIP, A)) == []


def test_a_start_checks_every_frontend_and_lets_lost_node_port_flows_time_out():
    flows = UdpFlows()
    flows.apply(change(service_port(BOTH, [B]), rules=rules()))
    candidates = [flow(VIP, A), flow(VIP), flow(AT_NODE), flow(AT_NODE, A), flow(VIP, B)]

    assert stale(flows, *candidates) == candidates[:3]


def test_a_start_removes_translated_flows_into_service_networks_without_a_frontend():
    flows = UdpFlows()
    flows.apply(change(service_port([VIP], [A]), rules=rules()))
    orphans = [flow(("10.96.7.7", 53), A), flow((VIP[0], 54), A)]
    candidates = [*orphans, flow(("10.96.7.7", 53)), flow(("10.97.0.1", 53), A), flow(VIP, A)]

    assert stale(flows, *candidates) == orphans
    flows.settled()
    assert not flows.needed


def test_a_start_spares_what_others_translate_to_somebody_in_a_service_network():
    flows = UdpFlows()
    flows.apply(change(service_port([VIP], [A]), rules=rules(shared_ranges=["10.96.7.0/24"])))
    candidates = [flow(("10.96.7.7", 53), A), flow(("10.96.8.7", 53), A)]

    assert stale(flows, *candidates) == candidates[1:]


def test_a_service_network_that_comes_later_is_checked_once():
    flows = running()
    flows.apply(change(rules=rules(services=["10.96.0.0/16", "10.98.0.0/16"])))
    candidates = [flow(("10.98.0.1", 53), A), flow(("10.96.7.7", 53), A)]
    assert stale(flows, *candidates) == candidates[:1]

    flows.apply(change(rules=rules(services=["10.96.0.0/16"])))
    assert not flows.needed


def test_service_networks_stay_to_be_checked_until_a_clean_up_succeeds():
    flows = UdpFlows()
    flows.apply(change(rules=rules()))
    flows.apply(change(rules=rules(localhost=False)))

    assert stale(flows, flow(("10.96.7.7", 53), A)) == [flow(("10.96.7.7", 53), A)]


def test_a_repair_checks_everything_again():
    flows = running()
    flows.doubt()
    candidates = [flow(VIP), flow(AT_NODE), flow(("10.96.7.7", 53), A), flow(VIP, A)]

    assert stale(flows, *candidates) == candidates[:3]


def test_entries_of_a_conntrack_zone_are_not_ours():
    flows = running()
    flows.apply(change(gone=[key()]))
    assert stale(flows, flow(VIP, A, zone=7)) == []


def test_only_the_changed_service_port_is_asked_for():
    flows = running()
    flows.apply(change(service_port([OTHER_VIP], [C], of=key("other"))))
    assert flows.suspects.vips == {OTHER_VIP}
    assert not flows.suspects.ports

    flows.apply(TableChanges(change().family, service_ports={key("other"): None}))
    assert flows.suspects.vips == {OTHER_VIP}
