"""The page itself: its format, who is talking, and what other threads and data paths add."""

from __future__ import annotations

import asyncio
import re
import threading
import time

from kproxy import __version__
from kproxy.config.fields import Configuration, Mode
from kproxy.core.addresses import Family
from kproxy.proxy.startup import metrics_of
from kproxy.run.metrics import UPSTREAM_VERSION
from tests.support.memory import OBJECTS, STEPS, Call
from tests.support.tables import listed, moved
from tests.unit.metrics.pages import Page
from tests.unit.metrics.watched import SOURCE, watched
from tests.unit.run.scenario import WORK_S
from tests.unit.run.virtual import run

V4, V6 = Family


def a_page(**kwargs):
    async def scene():
        async with watched(source=SOURCE, **kwargs) as it:
            it.source.push(listed(1))
            await asyncio.sleep(3)
            it.metrics.request("GET", 200, "127.0.0.1:6443", 0.1)
            return it.page()

    return run(scene)


def test_the_content_type_is_kube_proxys():
    assert a_page().content_type == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"


def test_every_metric_shown_has_series_and_no_series_tells_when_it_began():
    page = a_page()
    assert all(family.samples for family in page.families.values())
    assert "_created" not in page.text


def test_bounds_are_written_as_go_writes_them():
    bounds = set(re.findall(r'le="([^"]*)"', a_page().text))
    assert {"0.001", "1", "60", "16.384", "+Inf"} <= bounds
    assert not [bound for bound in bounds if bound.endswith(".0")]


def test_who_is_talking():
    page = a_page(mode=Mode.NFTABLES)
    (upstream,) = page.families["kubernetes_build_info"].samples
    assert upstream.value == 1
    assert upstream.labels["git_version"] == f"v{UPSTREAM_VERSION}+kproxy.{__version__}"
    assert f"{upstream.labels['major']}.{upstream.labels['minor']}" == "1.37"
    (own,) = page.families["kproxy_build_info"].samples
    assert own.labels["version"] == __version__
    assert page.values("kproxy_mode_info", "mode") == {"nftables": 1}


def test_feature_gates_show_their_stage_and_whether_they_are_on():
    page = a_page()
    gates = page.families["kubernetes_feature_enabled"].samples
    assert {(g.labels["name"], g.labels["stage"]): g.value for g in gates} == {
        ("Settled", ""): 1,
        ("Young", "ALPHA"): 0,
    }


def test_the_names_that_kubernetes_gave_are_counted():
    page = a_page()
    named = ("kubeproxy_", "kubernetes_", "rest_client_")
    registered = page.families["registered_metrics_total"].samples
    assert [each.value for each in registered] == [
        len([name for name in page.families if name.startswith(named)])
    ]


def test_the_process_is_told_of():
    metrics = metrics_of(Configuration(), tuple(Family))
    page = Page(metrics)
    assert page.value("process_resident_memory_bytes") > 1e6
    assert 0 < page.value("process_start_time_seconds") <= time.time()


def test_requests_of_many_threads_are_all_counted():
    metrics = metrics_of(Configuration(), tuple(Family))

    def ask():
        for _ in range(500):
            metrics.request("GET", 200, "127.0.0.1:6443", 0.03)
            metrics.request("GET", "<error>", "127.0.0.1:6443", None)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.expose()
    page = Page(metrics)
    where = {"host": "127.0.0.1:6443"}
    assert page.value("rest_client_requests_total", code="200", method="GET", **where) == 2000
    assert page.value("rest_client_requests_total", code="<error>", method="GET", **where) == 2000
    duration = "rest_client_request_duration_seconds"
    assert page.value(f"{duration}_count", verb="GET", **where) == 2000
    assert page.value(f"{duration}_bucket", verb="GET", le="0.025", **where) == 0
    assert page.value(f"{duration}_bucket", verb="GET", le="0.1", **where) == 2000


def test_a_request_may_take_no_time_at_all():
    metrics = metrics_of(Configuration(), tuple(Family))
    metrics.request("PATCH", 200, "api", 0.0)
    count = "rest_client_request_duration_seconds_count"
    assert Page(metrics).value(count, verb="PATCH", host="api") == 1


def test_what_data_paths_count_is_told_by_family_or_added_up():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1))
            await asyncio.sleep(3.1)  # between two polls
            first = it.page()
            it.source.push(moved(1, 2)[:1])
            await asyncio.sleep(1.1 * WORK_S)  # written, and not asked for anything since
            steps = sum(backend.steps for backend in it.backends.values())
            return first, it.page(), steps

    first, second, steps = run(scene)
    frontends = {"kind": "frontend", "ip_family": "IPv4"}
    assert first.families[OBJECTS.name].type == "gauge"
    assert first.value(OBJECTS.name, **frontends) == 1
    assert second.families[STEPS.name].type == "counter"
    assert second.value(STEPS.name) == steps > first.value(STEPS.name) > 0


def test_what_a_data_path_counted_stays_while_the_kernel_refuses():
    async def scene():
        async with watched(faults={V4: {Call.COMMIT: [None] + [0] * 100}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(3)
            before = it.page().value(STEPS.name)
            it.source.push(moved(1, 2)[:1])
            await asyncio.sleep(3)
            return before, it.page().value(STEPS.name)

    before, after = run(scene)
    assert before == after > 0
