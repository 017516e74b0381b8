"""What an earlier run used is asked to withdraw, and goes when nothing needs it any more."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from kproxy.proxy.handover import Handover, end_others
from tests.unit.run.virtual import Slow, run

V4, V6 = Family.IPV4, Family.IPV6


class Old:
    """A data path that connections need for so many questions; some of its answers are refusals."""

    def __init__(self, name="old", *, needed=0, objects=7, refuses=()):
        self.name = name
        self.asked = 0
        self.objects = objects
        self._needed = needed
        self._refuses = refuses

    def withdraw(self):
        self.asked += 1
        if self.asked in self._refuses:
            raise BackendError("listing connections", "not now", transient=True)
        return self.asked > self._needed

    def clean_up(self):
        removed, self.objects = self.objects, 0
        return removed


def handover(*old):
    return Handover(lambda family: old, Slow(0.1))


async def running(it, seconds):
    task = asyncio.create_task(it.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_what_nobody_needs_goes_at_once(caplog):
    caplog.set_level("INFO")
    old, never = Old(), Old("never used", objects=0)
    handover(old, never).begin(V4)
    assert (old.asked, old.objects) == (1, 0)
    assert caplog.messages == ["IPv4: removed 7 objects of old, which served before"]


def test_what_is_needed_is_asked_time_and_again_and_goes_in_the_end(caplog):
    caplog.set_level("INFO")
    old = Old(needed=3)
    it = handover(old)
    it.begin(V4)
    assert (old.asked, old.objects) == (1, 7)
    run(running, it, 14)
    assert (old.asked, old.objects) == (3, 7)
    run(running, it, 100)
    assert (old.asked, old.objects) == (4, 0)
    assert caplog.messages == [
        "IPv4: old takes no new connections; a running kproxy removes it when open ones end",
        "IPv4: removed 7 objects of old, which served before",
    ]


def test_nothing_is_asked_before_our_own_rules_are_in_force():
    old = Old(needed=9)
    run(running, handover(old), 60)
    assert old.asked == 0


def test_each_family_has_its_own_turn():
    parts = {V4: Old(needed=1), V6: Old(needed=1)}
    it = Handover(lambda family: [parts[family]], Slow(0.1))
    it.begin(V6)
    run(running, it, 12)
    assert (parts[V4].asked, parts[V6].objects) == (0, 0)


def test_one_that_refuses_keeps_no_other():
    refusing, other = Old("refusing", refuses={1, 2}), Old("other")
    it = handover(refusing, other)
    with pytest.raises(BackendError, match="not now"):
        it.begin(V4)
    assert (refusing.objects, other.objects) == (7, 0)
    run(running, it, 60)
    assert refusing.asked == 1, "whoever began begins again"
    with pytest.raises(BackendError, match="not now"):
        it.begin(V4)
    it.begin(V4)
    assert refusing.objects == 0
    assert other.asked == 1


def test_a_refusal_later_on_is_said_once_and_asked_again(caplog):
    old = Old(needed=1, refuses=range(2, 6))
    it = handover(old)
    it.begin(V4)
    run(running, it, 60)
    assert old.objects == 0
    (said,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert said == (
        "IPv4: what kproxy used before stays: listing connections: not now; trying again every 5 s"
    )


class Path:
    """What is asked of the data path in use; it refuses so many times."""

    def __init__(self, *, refusals=0):
        self.asked = 0
        self._refusals = refusals

    def in_force(self, family):
        self.asked += 1
        if self.asked <= self._refusals:
            raise BackendError("removing leftovers", "not today", transient=True)


def test_what_was_begun_is_not_begun_again_for_what_kube_proxy_left(caplog):
    caplog.set_level("INFO")
    old, path = Old(needed=9), Path(refusals=2)
    it = handover(old)
    for _ in range(2):
        with pytest.raises(BackendError, match="not today"):
            end_others(V4, it, path)
    end_others(V4, it, path)
    assert (old.asked, path.asked) == (1, 3)
    assert len(caplog.messages) == 1


def test_what_kube_proxy_left_does_not_wait_for_what_refuses_to_go():
    old, path = Old(refuses=range(1, 9)), Path()
    with pytest.raises(BackendError, match="not now"):
        end_others(V4, handover(old), path)
    assert path.asked == 1


class Ending(ThreadPoolExecutor):
    """Tells when somebody begins to wait for its thread."""

    def __init__(self):
        super().__init__(1)
        self.awaited = threading.Event()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.awaited.set()
        super().shutdown(wait, cancel_futures=cancel_futures)


class Lengthy(Old):
    """Is still being removed when the process is told to end."""

    def __init__(self, executor):
        super().__init__(needed=1)
        self.removing = threading.Event()
        self._executor = executor

    def clean_up(self):
        self.removing.set()
        self._executor.awaited.wait(timeout=60)
        return super().clean_up()


def test_what_is_being_removed_is_removed_before_the_end():
    with Ending() as executor:
        old = Lengthy(executor)
        it = Handover(lambda family: [old], executor)
        it.begin(V4)

        async def scene():
            task = asyncio.create_task(it.run())
            await asyncio.sleep(6)
            old.removing.wait(timeout=60)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert old.objects == 0

        run(scene)
