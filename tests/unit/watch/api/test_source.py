"""The source as the loop sees it: what comes first, what comes together, and how it ends."""

import asyncio
import contextlib
import logging
import threading
import time

import pytest

from kproxy.core.objects import Kind
from kproxy.core.store import Replaced, Store, Upserted
from kproxy.ports.source import SourceState
from kproxy.watch.api.source import ApiSource
from kproxy.watch.api.times import Times
from tests.support.fake_api import faults
from tests.support.fake_api.samples import endpoint_slice, node, service
from tests.support.waiting import LONGEST_S
from tests.unit.watch.api.following import NODE_NAME, QUICK

ADDRESSES = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}


def a_node(**fields):
    return {**node(NODE_NAME), **fields}


def fill(fake):
    fake.fake.put("services", service("web"))
    fake.fake.put("endpointslices", endpoint_slice("web-1"))
    fake.fake.put("nodes", a_node(status=ADDRESSES))


def run(api, story, **times):
    """Let `story` use the batches of a source, then end them."""

    async def main():
        source = ApiSource(
            api,
            node_name=NODE_NAME,
            log=logging.getLogger("test"),
            times=Times(**{**QUICK, **times}),
        )
        async with contextlib.aclosing(source.batches()) as batches:
            async with asyncio.timeout(LONGEST_S):
                await story(batches, source)

    asyncio.run(main())


def kinds(batch):
    return {change.kind for change in batch if isinstance(change, Replaced)}


def states(source):
    return {status.kind: status.state for status in source.status()}


async def until(true):
    deadline = time.monotonic() + LONGEST_S
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def all_is_taken_in(fake, source):
    """Wait until a source has taken in what happened to Services so far.

    An object is refused before what came together with it is taken in, but not before what came
    ahead of that.
    """
    for count in (1, 2):
        fake.fake.put("services", service(f"bad{count}", "0.0.0.0"))
        await until(lambda count=count: source.status()[0].refused == count)


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("follow ")]


def until_threads_ended():
    deadline = time.monotonic() + LONGEST_S
    while threads():
        assert time.monotonic() < deadline, threads()


def test_the_first_batch_lists_every_kind(fake, api):
    fill(fake)

    async def story(batches, source):
        first = await anext(batches)
        assert [type(change) for change in first] == [Replaced] * 4
        assert kinds(first) == set(Kind)
        assert all(change.objects for change in first)
        assert set(states(source).values()) == {SourceState.FOLLOWING}
        assert all(thread.daemon for thread in threading.enumerate() if "follow" in thread.name)
        assert sorted(threads()) == sorted(f"follow {kind.value}" for kind in Kind)

    run(api, story)


@pytest.mark.parametrize("last", ["services", "endpointslices"])
def test_nothing_comes_before_services_and_slices_are_listed(fake, api, last):
    fill(fake)

    async def story(batches, source):
        first = asyncio.ensure_future(anext(batches))
        with fake.fake.during(last, faults.unavailable()) as rule:
            await until(lambda: rule.used >= 5)
            assert not first.done()
        assert kinds(await first) == set(Kind)

    run(api, story, node_s=0.0)


def test_the_node_is_waited_for_until_it_has_an_address(fake, api, caplog):
    fill(fake)
    fake.fake.put("nodes", a_node())

    async def story(batches, source):
        first = asyncio.ensure_future(anext(batches))
        await until(lambda: all(status.lists for status in source.status()))
        assert not first.done()
        fake.fake.put("nodes", a_node(status=ADDRESSES))
        (nodes,) = [change for change in await first if change.kind is Kind.NODE]
        assert nodes.objects[0].addresses == ("192.0.2.1",)

    run(api, story, node_s=LONGEST_S)
    assert "shows no Node" not in caplog.text


@pytest.mark.parametrize("there", [True, False])
def test_the_node_is_not_waited_for_for_ever(fake, api, caplog, there):
    fake.fake.put("services", service("web"))
    if there:
        fake.fake.put("nodes", a_node())

    async def story(batches, source):
        started = time.monotonic()
        first = await anext(batches)
        assert time.monotonic() - started >= 1.0
        assert kinds(first) == set(Kind)
        fake.fake.put("nodes", a_node(status=ADDRESSES))
        (change,) = await anext(batches)
        assert change.object.addresses == ("192.0.2.1",)

    run(api, story, node_s=1.0)
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said.startswith(f"the API server shows no Node named {NODE_NAME} with an address")


def test_a_node_that_cannot_be_listed_comes_later(fake, api):
    fill(fake)
    fake.fake.forbid("nodes")

    async def story(batches, source):
        assert kinds(await anext(batches)) == set(Kind) - {Kind.NODE}
        assert states(source)[Kind.NODE] is SourceState.FAILING
        fake.fake.permit("nodes")
        assert kinds(await anext(batches)) == {Kind.NODE}

    run(api, story, node_s=1.0)


def test_service_cidrs_are_waited_for_until_they_are_answered(fake, api):
    fill(fake)

    async def story(batches, source):
        first = asyncio.ensure_future(anext(batches))
        await until(lambda: sum(status.lists for status in source.status()) == 3)
        assert not first.done()
        assert kinds(await first) == set(Kind) - {Kind.SERVICE_CIDR}
        assert states(source)[Kind.SERVICE_CIDR] is SourceState.FAILING

    with fake.fake.during("servicecidrs", faults.Hang()):
        run(api, story, answer_s=0.3, node_s=LONGEST_S)


def test_service_cidrs_that_are_not_to_be_had_are_an_empty_list(fake, api):
    fill(fake)
    fake.fake.remove("servicecidrs")

    async def story(batches, source):
        first = await anext(batches)
        assert Replaced(Kind.SERVICE_CIDR, ()) in first
        assert states(source)[Kind.SERVICE_CIDR] is SourceState.OFF

    run(api, story)


def test_what_changed_meanwhile_comes_together(fake, api):
    fill(fake)

    async def story(batches, source):
        await anext(batches)
        fake.fake.put("services", service("web", "10.96.1.9"), service("new", "10.96.1.2"))
        fake.fake.put("services", service("web", "10.96.1.8"))
        await all_is_taken_in(fake, source)
        batch = await anext(batches)
        told = [change.object for change in batch if isinstance(change, Upserted)]
        assert {each.key.name: each.cluster_ips[0] for each in told} == {
            "web": "10.96.1.8",
            "new": "10.96.1.2",
        }
        assert len(told) == 2

    run(api, story)


def test_a_slow_reader_sees_the_same_in_the_end(fake, api):
    fill(fake)

    async def story(batches, source):
        store = Store()
        for number in range(200):
            fake.fake.put("services", service(f"s{number % 20}", f"10.96.2.{number}"))
            if number % 50 == 0:
                for change in await anext(batches):
                    store.apply(change)
        await all_is_taken_in(fake, source)
        expected = {f"s{n % 20}": f"10.96.2.{n}" for n in range(180, 200)} | {"web": "10.96.1.1"}
        count = 0
        while expected != {e.key.name: e.cluster_ips[0] for e in store.all(Kind.SERVICE)}:
            for change in await anext(batches):
                count += isinstance(change, Upserted)
                store.apply(change)
        assert count <= 20, "each of twenty counts once"

    run(api, story)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_when_it_ends_threads_and_connections_end(fake, api, how):
    fill(fake)

    async def story(batches, source):
        await anext(batches)
        if how == "cancelled":
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(api, story)
    deadline = time.monotonic() + LONGEST_S
    while threads() or fake.fake.watching("services") or fake.fake.watching("nodes"):
        assert time.monotonic() < deadline, threads()


def test_it_ends_promptly_though_the_server_does_not_answer(fake, api):
    async def story(batches, source):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(batches)

    with fake.fake.during(None, faults.Hang()):
        run(api, story, answer_s=10 * LONGEST_S)
        until_threads_ended()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_thread_ends_the_source(fake, api, monkeypatch):
    fill(fake)

    async def story(batches, source):
        await anext(batches)
        monkeypatch.setattr("kproxy.watch.api.reflector.from_json", lambda kind, raw: 1 / 0)
        fake.fake.put("services", service("web", "10.96.1.9"))
        with pytest.raises(RuntimeError, match="died of a bug"):
            await anext(batches)

    run(api, story)
    until_threads_ended()  # each tells of its bug at its very end


def test_a_cluster_that_is_away_for_a_while_changes_nothing(fake, api):
    fill(fake)

    async def story(batches, source):
        await anext(batches)
        fake.fake.stop()
        waiting = asyncio.ensure_future(anext(batches))
        await until(lambda: set(states(source).values()) == {SourceState.FAILING})
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done, "nothing has changed"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(api, story)
