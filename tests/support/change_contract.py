"""What holds when one data path follows another in a kernel, by a restart.

Subclass `ChangeContract`, name the class `Test…`, and give it a fixture `change`.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from kproxy.core.addresses import Family
from kproxy.core.table import ForwardingTable
from kproxy.ports.data_path import Backend, Former
from tests.support.contract import Follower

_AT_ONCE_S = 1.0


class Conversation(Protocol):
    """A connection or flow that lasts."""

    def partner(self, *, quiet_s: float = ...) -> str:
        """Say something and return which pod answers, or else why none does."""


class Change(Protocol):
    """A node with pods and clients, on which one data path follows another, for one test."""

    family: Family

    def first(self) -> Backend:
        """Return a new backend of the data path that goes."""

    def second(self) -> Backend:
        """Return a new backend of the data path that comes."""

    def former(self) -> Former:
        """Return the first data path as a process that was just started with the second sees it."""

    def left(self) -> Collection[str]:
        """Return what of the first data path is in the kernel."""

    def table(self, *pods: str) -> ForwardingTable:
        """Return a table with Services, by TCP and UDP, that these pods serve."""

    def pods(self) -> tuple[str, str]:
        """Return two pods, as partners in conversations are called."""

    def converse(self) -> list[Conversation]:
        """Begin a conversation of each kind, through each kind of frontend."""

    def forget(self) -> None:
        """End all conversations; the kernel forgets them, as it does some time after that."""


def partners(conversations: Iterable[Conversation]) -> set[str]:
    return {each.partner() for each in conversations}


def partners_at_once(conversations: Iterable[Conversation]) -> set[str]:
    return {each.partner(quiet_s=_AT_ONCE_S) for each in conversations}


class ChangeContract:
    """The laws of a change of the data path by restart; a fixture `change` brings the node."""

    def test_what_is_open_goes_on_and_what_begins_meets_the_new_rules(self, change):
        old, new = change.pods()
        Follower(change.first()).apply(change.table(old))
        begun = change.converse()
        assert partners(begun) == {old}

        follower = Follower(change.second())
        follower.apply(change.table(old))
        assert partners(begun + change.converse()) == {old}
        former = change.former()
        assert not former.withdraw()
        follower.apply(change.table(new))
        assert partners(change.converse()) == {new}
        assert partners(begun) == {old}

        change.forget()
        assert former.withdraw()
        assert former.clean_up()
        assert not change.left()
        assert follower.reconciler.audit().written == 0
        assert partners(change.converse()) == {new}

    def test_what_is_open_needs_nothing_but_what_a_withdrawal_leaves(self, change):
        pod, _ = change.pods()
        Follower(change.first()).apply(change.table(pod))
        begun = change.converse()
        assert partners(begun) == {pod}
        everything = len(change.left())

        former = change.former()
        assert not former.withdraw()
        assert not former.withdraw()
        assert len(change.left()) < everything
        assert pod not in partners_at_once(change.converse())
        assert partners(begun) == {pod}

    def test_connections_that_begin_later_are_not_waited_for(self, change):
        pod, _ = change.pods()
        Follower(change.first()).apply(change.table(pod))
        assert partners(change.converse()) == {pod}
        Follower(change.second()).apply(change.table(pod))
        former = change.former()
        assert not former.withdraw()

        change.forget()
        assert partners(change.converse()) == {pod}
        assert former.withdraw()

    def test_another_start_goes_on_with_a_withdrawal(self, change):
        pod, _ = change.pods()
        Follower(change.first()).apply(change.table(pod))
        begun = change.converse()
        assert partners(begun) == {pod}
        Follower(change.second()).apply(change.table(pod))
        assert not change.former().withdraw()
        left = sorted(change.left())

        again = change.former()
        assert not again.withdraw()
        assert sorted(change.left()) == left
        assert partners(begun) == {pod}
        change.forget()
        assert again.withdraw()
        assert again.clean_up()
        assert not change.left()

    def test_without_connections_it_goes_at_once(self, change):
        pod, _ = change.pods()
        Follower(change.first()).apply(change.table(pod))
        Follower(change.second()).apply(change.table(pod))
        former = change.former()
        assert former.withdraw()
        assert former.clean_up()
        assert not change.left()

    def test_what_never_was_there_is_gone_already(self, change):
        pod, _ = change.pods()
        Follower(change.second()).apply(change.table(pod))
        former = change.former()
        assert former.withdraw()
        assert former.clean_up() == 0
        assert not change.left()

    def test_the_way_back_is_open_while_connections_last(self, change):
        pod, _ = change.pods()
        Follower(change.first()).apply(change.table(pod))
        begun = change.converse()
        assert partners(begun) == {pod}
        Follower(change.second()).apply(change.table(pod))
        assert not change.former().withdraw()

        follower = Follower(change.first())
        follower.apply(change.table(pod))
        assert follower.reconciler.audit().written == 0
        assert partners(begun + change.converse()) == {pod}
