"""What waits for a slow reader."""

import random

import pytest

from kproxy.core.objects import Kind, ObjectKey
from kproxy.core.store import Deleted, Replaced, Store, Upserted
from kproxy.watch.api.inbox import Inbox
from tests.support.core.things import a_service

A, B = a_service("a"), a_service("b")
NEW_A = a_service("a", cluster_ips=("10.96.7.7",))


class Woken:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


@pytest.fixture
def woken():
    return Woken()


@pytest.fixture
def inbox(woken):
    return Inbox(woken)


def by_key(*objects):
    return {each.key: each for each in objects}


def test_an_object_that_changed_twice_is_told_once_as_it_is_now(inbox):
    inbox.change(Kind.SERVICE, [Upserted(A), Upserted(B)])
    inbox.change(Kind.SERVICE, [Upserted(NEW_A)])

    assert set(inbox.take()) == {Upserted(NEW_A), Upserted(B)}
    assert inbox.take() == ()


def test_an_object_that_came_and_went_is_told_as_gone(inbox):
    inbox.change(Kind.SERVICE, [Upserted(A), Deleted(Kind.SERVICE, A.key)])

    assert inbox.take() == (Deleted(Kind.SERVICE, A.key),)


def test_changes_after_a_list_that_waits_become_part_of_it(inbox):
    inbox.change(Kind.SERVICE, [Deleted(Kind.SERVICE, ObjectKey("default", "before"))])
    inbox.replace(Kind.SERVICE, by_key(A, B))
    inbox.change(Kind.SERVICE, [Deleted(Kind.SERVICE, B.key), Upserted(NEW_A)])

    assert inbox.take() == (Replaced(Kind.SERVICE, (NEW_A,)),)


def test_changes_after_a_list_that_was_taken_stay_changes(inbox):
    inbox.replace(Kind.SERVICE, by_key(A))
    inbox.take()
    inbox.change(Kind.SERVICE, [Upserted(B)])

    assert inbox.take() == (Upserted(B),)


def test_a_list_can_be_looked_at_before_it_is_taken(inbox):
    assert inbox.listed(Kind.SERVICE) is None

    inbox.replace(Kind.SERVICE, by_key(A))

    assert inbox.listed(Kind.SERVICE) == (A,)
    assert inbox.listed(Kind.NODE) is None
    assert inbox.take() == (Replaced(Kind.SERVICE, (A,)),)


def test_whoever_waits_is_woken_until_the_inbox_is_closed(inbox, woken):
    inbox.replace(Kind.SERVICE, {})
    inbox.change(Kind.SERVICE, [Upserted(A)])
    inbox.rouse()
    inbox.abandon()
    assert woken.times == 4
    assert inbox.abandoned

    inbox.close()
    inbox.change(Kind.SERVICE, [Upserted(B)])
    assert woken.times == 4


@pytest.mark.parametrize("seed", range(20))
def test_however_slow_the_reader_is_it_ends_up_with_the_same(inbox, seed):
    """The objects in force depend on what happened, not on when somebody looked."""
    chance = random.Random(seed)
    names = [a_service(name, cluster_ips=(f"10.96.0.{n}",)) for name in "abc" for n in (1, 2)]
    at_once, late = Store(), Store()
    for _ in range(60):
        match chance.randrange(8):
            case 0:
                objects = by_key(*chance.sample(names, 2))
                at_once.apply(Replaced(Kind.SERVICE, tuple(objects.values())))
                inbox.replace(Kind.SERVICE, objects)
            case 1 | 2:
                gone = Deleted(Kind.SERVICE, chance.choice(names).key)
                at_once.apply(gone)
                inbox.change(Kind.SERVICE, [gone])
            case 3:
                for change in inbox.take():
                    late.apply(change)
            case _:
                new = Upserted(chance.choice(names))
                at_once.apply(new)
                inbox.change(Kind.SERVICE, [new])
    for change in inbox.take():
        late.apply(change)

    held = {each.key: each for each in late.all(Kind.SERVICE)}
    assert held == {each.key: each for each in at_once.all(Kind.SERVICE)}
