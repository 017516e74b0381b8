"""One writer of rules in a network namespace, tried in a namespace of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import threading
import time

import pytest

from kproxy.node import lock as node_lock
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace():
    """Enter a network namespace of its own."""
    made = Namespace("lock")
    with contextlib.closing(made), made.entered():
        yield made


def never():
    raise AssertionError("it waits although the lock is free")


def test_a_second_one_waits_until_the_first_ends(namespace):
    first = node_lock.take(never_told, never)
    said = []
    pauses = []

    def pause():
        pauses.append(1)
        if len(pauses) == 3:
            first.close()

    second = node_lock.take(said.append, pause)
    assert second is not None
    assert len(pauses) == 3
    assert said == [
        f"another kproxy (process {os.getpid()}) writes rules in this network namespace; "
        "waiting until it ends"
    ]
    second.close()


def never_told(line):
    raise AssertionError(line)


def test_who_will_not_wait_is_told_that_it_is_held(namespace):
    lock = node_lock.take(never_told, never)
    with pytest.raises(node_lock.Held):
        node_lock.take(never_told, never, wait=False)
    lock.close()
    node_lock.take(never_told, never, wait=False).close()


def test_any_number_may_ask(namespace):
    lock = node_lock.take(never_told, never)
    for _ in range(300):
        with pytest.raises(node_lock.Held):
            node_lock.take(never_told, until_the_queue_is_empty, wait=False)
    lock.close()


def until_the_queue_is_empty():
    """Wait until all that wait in the queue are taken off it: ours is the last."""
    with socket.socket(socket.AF_UNIX) as asking:
        # A socket with a time-out of Python's own would not wait for room in the queue.
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            asking.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(LONGEST_S), 0))
        asking.connect("\0kproxy/rules")
        assert asking.recv(1) == b""


def test_one_that_ends_while_it_is_asked_leaves_the_lock(namespace, monkeypatch):
    """The socket is gone between the attempt to have it and the question who has it."""
    first = node_lock.take(never_told, never)

    class TooLate(socket.socket):
        def connect(self, address):
            first.close()
            super().connect(address)

    monkeypatch.setattr(socket, "socket", TooLate)
    second = node_lock.take(never_told, lambda: None)
    assert second is not None
    second.close()


def test_without_descriptors_it_still_answers_later(namespace, monkeypatch):
    paused, resumed = threading.Event(), threading.Event()

    def pause(_):
        paused.set()
        assert resumed.wait(LONGEST_S)

    monkeypatch.setattr(time, "sleep", pause)
    lock = node_lock.take(never_told, never)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Who waits in accept has a descriptor for the first already.
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as asking:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            first.connect("\0kproxy/rules")
            asking.connect("\0kproxy/rules")
            assert paused.wait(LONGEST_S)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            resumed.set()
        asking.settimeout(LONGEST_S)
        assert asking.recv(1) == b"", "it is taken off the queue"
    lock.close()


def test_another_network_namespace_has_its_own(namespace):
    lock = node_lock.take(never_told, never)
    elsewhere = Namespace("elsewhere")
    with contextlib.closing(elsewhere), elsewhere.entered():
        other = node_lock.take(never_told, never)
        assert other is not None
        other.close()
    lock.close()


def test_a_name_taken_by_another_user_keeps_nobody_out(namespace):
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        os.setuid(65534)
        taken = node_lock.take(lambda line: None, lambda: None)
        theirs.send(b"!")
        theirs.recv(1)  # until the parent has closed its end
        os._exit(0 if taken else 1)
    theirs.close()
    try:
        ours.settimeout(LONGEST_S)
        assert ours.recv(1) == b"!"
        said = []
        assert node_lock.take(said.append, never, wait=False) is None
        assert said == [
            "the lock against a second kproxy is held by a process without root; going on"
        ]
    finally:
        ours.close()
        os.waitpid(child, 0)


def test_a_name_that_does_not_listen_keeps_nobody_out(namespace):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind("\0kproxy/rules")
        pauses = []
        assert node_lock.take(lambda line: None, lambda: pauses.append(1)) is None
        assert len(pauses) == 20, "it may only be about to begin"
