"""Which destinations have drained, and which virtual servers are looked at."""

import itertools

import pytest

from backends.ipvs.driver.draining import Draining
from backends.kernel.virtual_servers import Destination, Load, Server
from kproxy.core.addresses import Family

FIRST, SECOND, THIRD = (
    Server(Family.IPV4, 6, bytes([10, 96, 0, last]), 80) for last in range(1, 4)
)
POD, OTHER = (Destination(bytes([10, 1, 0, last]), 8080) for last in (2, 3))


class Kernel:
    """What there is behind a virtual server."""

    def __init__(self, **loads):
        self._loads = loads

    def destinations(self, server):
        return [(POD, Load(weight=0, translated=True, **self._loads))]


def draining_of(*pairs):
    made = Draining()
    made.add(pairs)
    return made


@pytest.mark.parametrize(
    ("active", "inactive", "ended"),
    [(1, 0, []), (0, 1, []), (2, 3, []), (0, 0, [(FIRST, POD)])],
    ids=["open", "closed or half closed", "both", "none"],
)
def test_one_has_drained_when_the_kernel_remembers_no_connection(active, inactive, ended):
    draining = draining_of((FIRST, POD), (SECOND, POD))
    assert draining.ended(Kernel(active=active, inactive=inactive), FIRST) == ended


def test_one_that_somebody_removed_is_over():
    draining = draining_of((FIRST, POD), (FIRST, OTHER))
    assert draining.ended(Kernel(active=1, inactive=0), FIRST) == [(FIRST, OTHER)]


def test_a_server_is_free_when_the_last_one_behind_it_is():
    draining = draining_of((FIRST, POD), (FIRST, OTHER))
    draining.discard([(FIRST, POD), (SECOND, POD)])
    assert FIRST in draining
    assert len(draining) == 1
    draining.discard([(FIRST, OTHER)])
    assert FIRST not in draining
    assert not draining


def test_all_are_looked_at_in_turn_wherever_a_look_ends():
    draining = draining_of((FIRST, POD), (SECOND, POD), (THIRD, POD))
    assert next(draining.in_turn()) == FIRST
    assert list(itertools.islice(draining.in_turn(), 2)) == [SECOND, THIRD]
    seen = []
    for server in draining.in_turn():
        seen.append(server)
        draining.discard([(server, POD)])
    assert seen == [FIRST, SECOND, THIRD]
    assert not list(draining.in_turn())


def test_a_reading_keeps_those_that_it_found_in_their_turn():
    draining = draining_of((FIRST, POD), (SECOND, POD))
    assert next(draining.in_turn()) == FIRST
    draining.replace([(THIRD, POD), (FIRST, OTHER), (SECOND, POD)])
    assert list(draining.in_turn()) == [SECOND, FIRST, THIRD]
    draining.replace([(FIRST, POD)])
    assert list(draining.in_turn()) == [FIRST]
    assert len(draining) == 1
