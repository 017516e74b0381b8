"""What the numbers say of changes on their way into the kernel."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from kproxy.config.fields import Mode
from kproxy.core.addresses import Family
from kproxy.core.flows import Flow
from kproxy.core.objects import Kind, ObjectKey, Protocol
from kproxy.core.store import Deleted, Difference, Replaced, Upserted
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.run.loop.agent import Ended
from kproxy.run.loop.reconcile import Applied
from kproxy.run.loop.worker import Job, Written
from kproxy.run.metrics.backlog import Backlog
from tests.support.memory import Call
from tests.support.tables import api_service, api_slices, as_udp, listed, listed_udp, moved
from tests.unit.metrics.watched import EPOCH_S, watched
from tests.unit.run.scenario import SETTINGS, WORK_S, Timed, now
from tests.unit.run.virtual import run

V4, V6 = Family
SYNC = "kubeproxy_sync_proxy_rules"
PROGRAMMING = "kubeproxy_network_programming_duration_seconds"


def dated(number, version, at):
    """The endpoints of a Service change; the change that led to it was at this time of day."""
    slices = api_slices(number, version)
    return tuple(Upserted(dataclasses.replace(each, triggered_at=at)) for each in slices)


def test_changes_are_counted_when_they_come_and_pending_until_they_are_written():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1, 2))
            await asyncio.sleep(10)
            before = it.page()
            it.source.push(moved(1, 2), [Upserted(api_service(3))])
            await asyncio.sleep(WORK_S / 2)
            while_writing = it.page()
            await asyncio.sleep(5 * WORK_S + SETTINGS.min_interval_s)
            return before, while_writing, it.page()

    before, while_writing, after = run(scene)
    changes = f"{SYNC}_endpoint_changes", f"{SYNC}_service_changes"
    assert [before.value(f"{name}_total") for name in changes] == [4, 2]
    assert [before.value(f"{name}_pending") for name in changes] == [0, 0]
    assert [while_writing.value(f"{name}_total") for name in changes] == [6, 3]
    assert [while_writing.value(f"{name}_pending") for name in changes] == [2, 1]
    assert [after.value(f"{name}_pending") for name in changes] == [0, 0]


def test_what_does_not_differ_is_no_change():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1), listed(1), [Deleted(Kind.SERVICE, ObjectKey("no", "such"))])
            await asyncio.sleep(1)
            return it.page()

    page = run(scene)
    assert page.value(f"{SYNC}_service_changes_total") == 1
    assert page.value(f"{SYNC}_endpoint_changes_total") == 2


def test_a_removal_is_a_change():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1), [Deleted(Kind.SERVICE, ObjectKey("shop", "web-1"))])
            it.source.push([Replaced(Kind.ENDPOINT_SLICE, ())])
            await asyncio.sleep(1)
            return it.page()

    page = run(scene)
    assert page.value(f"{SYNC}_service_changes_total") == 2
    assert page.value(f"{SYNC}_endpoint_changes_total") == 4


def test_changes_stay_pending_while_the_kernel_refuses_one_family():
    async def scene():
        async with watched(faults={V6: {Call.COMMIT: [None] + [0] * 3}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(moved(1, 2))
            await asyncio.sleep(2)
            it.source.push(moved(1, 3))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            refused = it.page()
            await asyncio.sleep(60)
            return refused, it.page()

    refused, after = run(scene)
    assert refused.value(f"{SYNC}_endpoint_changes_pending") == 4
    assert after.value(f"{SYNC}_endpoint_changes_pending") == 0


def test_the_time_of_the_last_change_and_of_the_last_write_are_times_of_day():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(moved(1, 2)[:1])
            queued_at = now()
            await asyncio.sleep(1)
            return queued_at, it.page()

    queued_at, page = run(scene)
    queued = page.values(f"{SYNC}_last_queued_timestamp_seconds", "ip_family")
    assert queued == {"IPv4": EPOCH_S + queued_at, "IPv6": EPOCH_S + 1000}
    written = page.values(f"{SYNC}_last_timestamp_seconds", "ip_family")
    assert written["IPv4"] == pytest.approx(EPOCH_S + queued_at + WORK_S)
    assert written["IPv6"] == pytest.approx(EPOCH_S + 1000 + WORK_S)


def test_programming_lasts_from_the_change_of_a_pod_until_the_kernel_has_it():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(dated(1, 2, EPOCH_S + now() - 7))
            await asyncio.sleep(10)
            it.source.push(moved(1, 3))
            await asyncio.sleep(10)
            return it.page()

    page = run(scene)
    for family in ("IPv4", "IPv6"):
        assert page.value(f"{PROGRAMMING}_count", ip_family=family) == 1
        lasted = page.value(f"{PROGRAMMING}_sum", ip_family=family)
        assert lasted == pytest.approx(7 + WORK_S)


def test_a_change_that_the_kernel_refused_is_programmed_when_it_takes_it_at_last():
    async def scene():
        async with watched(faults={V4: {Call.COMMIT: [None, 0]}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(dated(1, 2, EPOCH_S + now())[:1])
            await asyncio.sleep(60)
            return it.page()

    page = run(scene)
    assert page.value(f"{PROGRAMMING}_count", ip_family="IPv4") == 1
    assert page.value(f"{PROGRAMMING}_sum", ip_family="IPv4") == pytest.approx(0.5 + 2 * WORK_S)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("it is from before the start", lambda: dated(1, 2, EPOCH_S + 999)),
        ("it says nothing of the time", lambda: moved(1, 2)),
        ("it changes nothing in the table", lambda: dated(77, 2, EPOCH_S + 1005)),
        ("only others change the table", lambda: (*dated(77, 2, EPOCH_S + 1005), *moved(1, 2))),
        ("the table has it already", lambda: dated(1, 0, EPOCH_S + 1005)),
        (
            "a slice that goes tells of an earlier change",
            lambda: [Deleted(Kind.ENDPOINT_SLICE, each.object.key) for each in dated(2, 0, 1)],
        ),
    ],
)
def test_no_programming_is_measured_of_a_change_if(why, change):
    async def scene():
        async with watched() as it:
            services, slices = listed(1, 2)
            dated_slices = tuple(
                dataclasses.replace(each, triggered_at=EPOCH_S + 900) for each in slices.objects
            )
            it.source.push([services], [Replaced(Kind.ENDPOINT_SLICE, dated_slices)])
            await asyncio.sleep(10)
            it.source.push(change())
            await asyncio.sleep(10)
            return it.page()

    page = run(scene)
    assert page.value(f"{PROGRAMMING}_count", ip_family="IPv4") == 0, why


def test_the_time_for_stale_flows_is_not_part_of_the_programming():
    class Crowded(Timed):
        """Takes two seconds to look through what it tracks."""

        def flows(self, wanted):
            asyncio.get_running_loop().advance(2)
            return super().flows(wanted)

    async def scene():
        async with watched(kind=Crowded) as it:
            it.source.push(listed_udp(1))
            await asyncio.sleep(20)
            flow = Flow("10.9.0.1", 4, "10.96.0.1", 80, "10.1.0.0", 8080, "10.9.0.1", 4, 0)
            it.kernels[V4].flows.add(flow)
            change = dated(1, 2, EPOCH_S + now())[0]
            it.source.push([Upserted(as_udp(change.object))])
            await asyncio.sleep(20)
            return it.page()

    page = run(scene)
    assert page.value(f"{PROGRAMMING}_sum", ip_family="IPv4") == pytest.approx(WORK_S)
    conntrack = "kubeproxy_conntrack_reconciler"
    assert page.value(f"{conntrack}_sync_duration_seconds_sum", ip_family="IPv4") == 4
    assert page.value(f"{conntrack}_sync_duration_seconds_count", ip_family="IPv4") == 2
    assert page.values(f"{conntrack}_deleted_entries_total", "ip_family") == {"IPv4": 1, "IPv6": 0}


def test_a_sync_that_reads_everything_is_full_and_one_that_writes_the_change_is_partial():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(moved(1, 2))
            await asyncio.sleep(3)
            before_audit = it.page()
            await asyncio.sleep(SETTINGS.sync_period_s)
            return before_audit, it.page()

    before, after = run(scene)
    names = [f"kubeproxy_sync_{kind}proxy_rules_duration_seconds" for kind in ("full_", "partial_")]
    total = f"{SYNC}_duration_seconds_count"
    audits = "kproxy_audit_duration_seconds_count"
    for family in ("IPv4", "IPv6"):
        assert [before.value(f"{name}_count", ip_family=family) for name in names] == [1, 1]
        assert before.value(audits, ip_family=family) == 0
        assert [after.value(f"{name}_count", ip_family=family) for name in names] == [2, 1]
        assert after.value(audits, ip_family=family) == 1
        assert after.value(total, ip_family=family) == 3
        took_s = after.value(f"{SYNC}_duration_seconds_sum", ip_family=family)
        assert took_s == pytest.approx(3 * WORK_S)


def test_a_refused_write_is_a_restore_failure_and_a_partial_one_if_it_was_the_change_alone():
    async def scene():
        faults = {V4: {Call.COMMIT: [0, None, 0, 0]}, V6: {Call.OBSERVE: [0]}}
        async with watched(faults=faults) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(moved(1, 2))
            await asyncio.sleep(10)
            return it.page()

    page = run(scene)
    restore = "iptables_restore_failures_total"
    partial = "iptables_partial_restore_failures_total"
    assert page.values(f"{SYNC}_{restore}", "ip_family") == {"IPv4": 3, "IPv6": 0}
    assert page.values(f"{SYNC}_{partial}", "ip_family") == {"IPv4": 1, "IPv6": 0}
    refusals = "kproxy_refusals_total"
    assert page.value(refusals, ip_family="IPv4", doing="write_all") == 2
    assert page.value(refusals, ip_family="IPv4", doing="write_change") == 1
    assert page.value(refusals, ip_family="IPv6", doing="read") == 1
    # Refusals: while writing all after the first read, then the change, then all again.
    name = "kubeproxy_sync_{}_proxy_rules_duration_seconds_count"
    assert page.value(name.format("full"), ip_family="IPv4") == 4
    assert page.value(name.format("partial"), ip_family="IPv4") == 1


def test_a_refusal_counts_as_kube_proxy_calls_it_in_the_nftables_mode():
    async def scene():
        async with watched(mode=Mode.NFTABLES, faults={V4: {Call.COMMIT: [0]}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            return it.page()

    failures = f"{SYNC}_nftables_sync_failures_total"
    assert run(scene).values(failures, "ip_family") == {"IPv4": 1, "IPv6": 0}


def test_an_audit_that_cannot_read_is_no_failure_to_write():
    async def scene():
        async with watched(faults={V4: {Call.OBSERVE: [None, 0]}}) as it:
            it.source.push(listed(1))
            await asyncio.sleep(10)
            it.source.push(moved(1, 2))
            await asyncio.sleep(SETTINGS.sync_period_s)
            return it.page()

    page = run(scene)
    assert page.value("kproxy_refusals_total", ip_family="IPv4", doing="read") == 1
    failures = f"{SYNC}_iptables_restore_failures_total"
    assert page.values(failures, "ip_family") == {"IPv4": 0, "IPv6": 0}


def test_an_audit_that_takes_nothing_along_leaves_what_waits_pending():
    async def scene():
        async with watched() as it:
            metrics, (change, _) = it.metrics, dated(1, 2, EPOCH_S + now() + 1)
            metrics.differed(Difference(None, change.object))
            key = ServicePortKey("shop", "web-1", "http", Protocol.TCP)
            metrics.took({V4: TableChanges(V4, service_ports={key: None})}, 0.0)
            pages = []
            for takes in (False, True):
                job = Job(TableChanges(V4), look=True, takes=takes)
                metrics.began(V4, job)
                written = Written(Applied(0, (), True), False, (), None, ())
                metrics.done(Ended(V4, job, written, 0.1))
                pages.append(it.page())
            return pages

    audit, write = run(scene)
    pending = f"{SYNC}_endpoint_changes_pending"
    assert (audit.value(pending), write.value(pending)) == (1, 0)
    measured = [page.value(f"{PROGRAMMING}_count", ip_family="IPv4") for page in (audit, write)]
    assert measured == [0, 1]


def test_a_kernel_that_refuses_for_days_does_not_fill_the_memory():
    backlog = Backlog()
    for at in range(200):
        backlog.add(0, 1, [float(at)] * 100)
        backlog.taken()
    kept = backlog.written()
    assert kept == sorted(kept)
    assert len(kept) == 10_000
    assert not backlog.written()


def test_repairs_count_what_somebody_else_had_changed():
    async def scene():
        async with watched() as it:
            it.source.push(listed(1, 2, 3))
            await asyncio.sleep(10)
            written = it.page().values("kproxy_written_objects_total", "ip_family")
            before = len(it.kernels[V4].objects)
            it.kernels[V4].flush("kproxy/frontend/")
            lost = before - len(it.kernels[V4].objects)
            await asyncio.sleep(5)
            return written, before, lost, it.page()

    written, before, lost, page = run(scene)
    assert lost == 3
    assert written["IPv4"] == before
    assert page.values("kproxy_repaired_objects_total", "ip_family") == {"IPv4": lost, "IPv6": 0}
    assert page.values("kproxy_written_objects_total", "ip_family") == {
        "IPv4": before + lost,
        "IPv6": before,
    }


def test_compiling_is_measured_for_each_batch():
    async def scene():
        async with watched() as it:
            it.source.push(*([each] for each in listed(1)), moved(1, 2))
            await asyncio.sleep(1)
            return it.page()

    assert run(scene).value("kproxy_compile_duration_seconds_count") == 3


def test_what_can_fail_shows_as_zero_before_it_does():
    async def scene():
        async with watched() as it:
            return it.page()

    page = run(scene)
    zeros = {
        "kproxy_written_objects_total": 2,
        "kproxy_repaired_objects_total": 2,
        "kproxy_refusals_total": 6,
        f"{SYNC}_iptables_restore_failures_total": 2,
        f"{SYNC}_iptables_partial_restore_failures_total": 2,
        f"{SYNC}_endpoint_changes_total": 1,
        f"{SYNC}_service_changes_total": 1,
        f"{SYNC}_endpoint_changes_pending": 1,
        f"{SYNC}_service_changes_pending": 1,
        "kubeproxy_conntrack_reconciler_deleted_entries_total": 2,
        "kubeproxy_proxy_healthz_total": 2,
        "kubeproxy_proxy_livez_total": 2,
    }
    assert {n: [s.value for s in page.families[n].samples] for n in zeros} == {
        name: [0.0] * count for name, count in zeros.items()
    }
    assert f"{SYNC}_last_timestamp_seconds" not in page.families, "nothing was written yet"
