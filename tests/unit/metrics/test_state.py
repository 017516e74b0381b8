"""What is asked at the scrape: tables, families, source and probes."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Endpoint, Kind, Node, ObjectKey, PortSpec, Protocol
from kproxy.core.store import Replaced
from kproxy.ports.source import SourceState, SourceStatus
from tests.support.memory import Call
from tests.support.tables import api_service, api_slices, listed, moved
from tests.unit.metrics.watched import EPOCH_S, watched
from tests.unit.run.scenario import SETTINGS, WORK_S, now
from tests.unit.run.virtual import run

V4, V6 = Family
UNSERVED = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"


def page_after(*batches, wait_s=5, **kwargs):
    async def scene():
        async with watched(**kwargs) as it:
            it.source.push(*batches)
            await asyncio.sleep(wait_s)
            return it.page()

    return run(scene)


def test_the_sizes_of_the_tables():
    ports = (PortSpec("http", Protocol.TCP, 80, 30080), PortSpec("dns", Protocol.UDP, 53, 0))
    several = dataclasses.replace(api_service(9), ports=ports, external_ips=("192.0.2.7",))
    slices = tuple(each for number in (1, 9) for each in api_slices(number, 0))
    page = page_after(
        [Replaced(Kind.SERVICE, (api_service(1), several))],
        [Replaced(Kind.ENDPOINT_SLICE, slices)],
    )
    sizes = {
        "kproxy_services": (2, 2),
        "kproxy_service_ports": (3, 3),
        "kproxy_endpoints": (2, 2),  # nobody serves DNS
        "kproxy_frontends": (6, 4),  # the external address is IPv4
        "kproxy_conflicts": None,
    }
    for name, (v4, v6) in ((n, s) for n, s in sizes.items() if s is not None):
        assert page.values(name, "ip_family") == {"IPv4": v4, "IPv6": v6}, name
    assert page.value("kproxy_conflicts") == 0


@pytest.mark.parametrize(
    ("why", "policy", "node_port", "count"),
    [
        ("all are used", {}, 30080, 3),
        ("those elsewhere are not used", {"internal_local": True}, 0, 2),
        ("NodePorts use all", {"internal_local": True}, 30080, 3),
        ("those on this node are used by both policies", {"external_local": True}, 30080, 3),
    ],
)
def test_an_endpoint_that_connections_may_be_sent_to_is_counted_once(why, policy, node_port, count):
    nodes = {"10.1.0.1": "node", "10.1.0.2": "node", "10.1.0.3": "other-node"}
    endpoints = tuple(Endpoint(*each, True, True, False, (), ()) for each in nodes.items())
    slices = dataclasses.replace(api_slices(1, 0)[0], endpoints=endpoints)
    ports = (PortSpec("http", Protocol.TCP, 80, node_port),)
    service = dataclasses.replace(api_service(1), ports=ports, **policy)
    page = page_after(
        [Replaced(Kind.SERVICE, (service,)), Replaced(Kind.ENDPOINT_SLICE, (slices,))]
    )
    assert page.value("kproxy_endpoints", ip_family="IPv4") == count, why


def test_an_endpoint_that_only_outsiders_are_sent_to_is_counted():
    node = Node(ObjectKey("", "node"), zone="a", addresses=(), pod_cidrs=(), deleting=False)
    nearest = Endpoint("10.1.0.1", "other-node", True, True, False, ("a",), ())
    local = Endpoint("10.1.0.2", "node", True, True, False, ("b",), ())
    slices = dataclasses.replace(api_slices(1, 0)[0], endpoints=(nearest, local))
    service = dataclasses.replace(
        api_service(1), ports=(PortSpec("http", Protocol.TCP, 80, 30080),), external_local=True
    )
    page = page_after(
        [Replaced(Kind.NODE, (node,)), Replaced(Kind.SERVICE, (service,))],
        [Replaced(Kind.ENDPOINT_SLICE, (slices,))],
    )
    assert page.value("kproxy_endpoints", ip_family="IPv4") == 2


def test_what_ages_are_compared_with():
    assert page_after().value("kproxy_sync_period_seconds") == SETTINGS.sync_period_s


def test_a_frontend_that_two_services_claim_is_a_conflict():
    twins = [
        dataclasses.replace(api_service(number), external_ips=("192.0.2.7",)) for number in (1, 2)
    ]
    page = page_after([Replaced(Kind.SERVICE, tuple(twins)), Replaced(Kind.ENDPOINT_SLICE, ())])
    assert page.value("kproxy_conflicts") == 1


def test_a_health_port_that_is_a_node_port_is_a_conflict_too():
    taken = (PortSpec("http", Protocol.TCP, 80, 30073),)
    services = (
        dataclasses.replace(api_service(1), ports=taken),
        dataclasses.replace(api_service(2), external_local=True, health_check_node_port=30073),
    )
    page = page_after([Replaced(Kind.SERVICE, services), Replaced(Kind.ENDPOINT_SLICE, ())])
    assert page.value("kproxy_conflicts") == 1


@pytest.mark.parametrize(
    ("why", "policy", "endpoints", "internal", "external"),
    [
        ("there are endpoints elsewhere", {"internal_local": True}, True, 1, 0),
        ("there are endpoints elsewhere", {"external_local": True}, True, 0, 1),
        ("policy Cluster uses them", {}, True, 0, 0),
        ("there is no endpoint at all", {"internal_local": True}, False, 0, 0),
    ],
)
def test_a_local_policy_without_local_endpoints_counts(why, policy, endpoints, internal, external):
    service = dataclasses.replace(api_service(1), **policy)
    slices = api_slices(1, 0) if endpoints else ()
    page = page_after([Replaced(Kind.SERVICE, (service,)), Replaced(Kind.ENDPOINT_SLICE, slices)])
    for family in ("IPv4", "IPv6"):
        assert page.value(UNSERVED, traffic_policy="internal", ip_family=family) == internal, why
        assert page.value(UNSERVED, traffic_policy="external", ip_family=family) == external, why


def test_how_long_a_family_is_behind_and_how_often_it_was_refused():
    async def scene():
        async with watched(faults={V4: {Call.COMMIT: [None] + [0] * 100}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            in_step = it.page()
            since = now()
            it.source.push(moved(1, 2))
            await asyncio.sleep(5)
            return in_step, now() - since, it.page()

    in_step, waited_s, page = run(scene)
    assert in_step.values("kproxy_behind_seconds", "ip_family") == {"IPv4": 0, "IPv6": 0}
    assert in_step.values("kproxy_refusals_in_a_row", "ip_family") == {"IPv4": 0, "IPv6": 0}
    assert page.values("kproxy_behind_seconds", "ip_family") == {"IPv4": waited_s, "IPv6": 0}
    # Tried at once and after 0.5, 1 and 2 s of pause.
    assert waited_s > 4 * WORK_S + 3.5
    assert page.values("kproxy_refusals_in_a_row", "ip_family") == {"IPv4": 4, "IPv6": 0}


def test_each_kind_is_in_one_state_of_its_source():
    states = dict(zip(Kind, SourceState, strict=True))
    source = tuple(
        SourceStatus(kind, state, EPOCH_S + 7, lists=5, reconnects=4, refused=3)
        for kind, state in states.items()
    )
    page = page_after(source=source)
    for kind, state in states.items():
        for each in SourceState:
            shown = page.value("kproxy_source_state", kind=kind.value, state=each.value)
            assert shown == (each is state)
    kinds = {kind.value for kind in Kind}
    for name, value in (
        ("kproxy_source_state_timestamp_seconds", EPOCH_S + 7),
        ("kproxy_source_lists_total", 5),
        ("kproxy_source_reconnects_total", 4),
        ("kproxy_source_refused_objects", 3),
    ):
        assert page.values(name, "kind") == dict.fromkeys(kinds, value)


def test_the_answers_of_the_probes():
    page = page_after(probes={("healthz", 200): 5, ("healthz", 418): 2, ("livez", 200): 9})
    assert page.values("kubeproxy_proxy_healthz_total", "code") == {"200": 5, "418": 2, "503": 0}
    assert page.values("kubeproxy_proxy_livez_total", "code") == {"200": 9, "503": 0}


def test_the_series_do_not_multiply_with_services():
    few, many = page_after(listed(1)), page_after(listed(*range(1, 200)))
    assert len(few.text.splitlines()) == len(many.text.splitlines())


def test_how_many_service_ports_are_not_in_force_as_asked():
    async def scene():
        async with watched() as it:
            it.kernels[V6].has_room = lambda name, value: "/service/shop/web-2" not in name
            it.source.push(listed(1, 2))
            await asyncio.sleep(30)
            return it.page()

    page = run(scene)
    assert page.values("kproxy_unheld_service_ports", "ip_family") == {"IPv4": 0, "IPv6": 1}
