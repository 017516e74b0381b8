"""Ports to listen on that no other test takes meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.ports import keep

_PORTS = range(11000, 20000)  # below those of API servers and those that the kernel gives out
_TRIES = 200


@pytest.fixture
def free_ports() -> Iterator[Callable[[int], range]]:
    """Return neighbouring ports that stay ours, at every address, until the test ends."""
    with ExitStack() as kept:

        def take(count: int) -> range:
            starts = range(_PORTS.start, _PORTS.stop - count)
            for start in random.SystemRandom().sample(starts, _TRIES):
                ports = range(start, start + count)
                if _keep_all(ports, kept):
                    return ports
            raise AssertionError("no free ports")

        yield take


def _keep_all(ports: range, kept: ExitStack) -> bool:
    """Keep all of these ports, or none; say which."""
    with ExitStack() as taken:
        for port in ports:
            try:
                taken.enter_context(keep(port, host="::"))
            except OSError:
                return False
        kept.push(taken.pop_all())
    return True
