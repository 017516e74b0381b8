"""One writer of rules in a network namespace, tried in a namespace of its own."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from kproxy import node_lock
from tests.net.namespace import Namespace

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


def test_it_is_known_to_others_whether_it_is_held(namespace):
    assert not node_lock.is_held()
    lock = node_lock.take(never_told, never)
    assert node_lock.is_held()
    lock.close()
    assert not node_lock.is_held()


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
        ours.settimeout(10)
        assert ours.recv(1) == b"!"
        said = []
        assert node_lock.take(said.append, never) is None
        assert said == [
            "the lock against a second kproxy is held by a process without root; going on"
        ]
        assert not node_lock.is_held()
    finally:
        ours.close()
        os.waitpid(child, 0)


def test_a_name_that_does_not_listen_keeps_nobody_out(namespace):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind("\0kproxy/rules")
        assert node_lock.take(lambda line: None, never) is None
