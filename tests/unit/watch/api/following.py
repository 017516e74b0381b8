"""One kind that is followed as the source follows it, without an event loop."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from types import SimpleNamespace

from kproxy.core.objects import Kind
from kproxy.core.store import Store
from kproxy.watch.api.condition import Condition
from kproxy.watch.api.inbox import Inbox
from kproxy.watch.api.reflector import Abilities, Reflector
from kproxy.watch.api.resources import followed
from kproxy.watch.api.stream import ResourceReader
from kproxy.watch.api.times import Times
from tests.support.waiting import LONGEST_S

NODE_NAME = "n1"
# Who waits for an answer, or for the next word, waits in vain only if a test wants it.
QUICK = {
    "answer_s": LONGEST_S,
    "idle_s": LONGEST_S,
    "hasty_s": 0.05,
    "backoff_first_s": 0.01,
    "backoff_most_s": 0.05,
    "missing_first_s": 0.05,
    "doubted_s": 0.0,
    "node_s": LONGEST_S,
}


class Following:
    """A thread that follows one kind, and what it brought so far.

    `times` may be changed; a watch that is open already keeps those that it began with.
    """

    def __init__(self, api, kind: Kind, **times) -> None:
        self.store = Store()
        self.batches = []
        self.abilities = Abilities(logging.getLogger("test"))
        self._kind = kind
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._session = api.session()
        self._inbox = Inbox(self._woken.set)
        self._condition = Condition(kind, log=logging.getLogger("test"), now=time.time)
        self.times = SimpleNamespace(**dataclasses.asdict(Times(**{**QUICK, **times})))
        (resource,) = (each for each in followed(NODE_NAME) if each.kind is kind)
        clock, chance = time.monotonic, random.random
        reflector = Reflector(
            resource,
            ResourceReader(resource, self._session, self.times, clock=clock, chance=chance),
            self._inbox,
            self._condition,
            abilities=self.abilities,
            times=self.times,
            clock=clock,
            chance=chance,
        )
        self._thread = threading.Thread(target=reflector.run, args=(self._stopping,))
        self._thread.start()

    @property
    def status(self):
        return self._condition.status

    @property
    def objects(self):
        """The objects in force, by name."""
        self._take()
        return {each.key.name: each for each in self.store.all(self._kind)}

    def until(self, true) -> None:
        """Wait until something holds of this."""
        deadline = time.monotonic() + LONGEST_S
        while not true(self):
            left_s = deadline - time.monotonic()
            assert left_s > 0, (self.objects, self.status)
            self._woken.wait(min(left_s, 0.02))  # a status changes without a word
            self._woken.clear()

    def until_names(self, *names) -> None:
        """Wait until these are the objects."""
        self.until(lambda following: following.objects.keys() == set(names))

    def until_state(self, state) -> None:
        self.until(lambda following: following.status.state is state)

    def until_quiet(self, for_s: float) -> None:
        """Wait until nothing is brought for some time."""
        self.until(lambda _: not self._woken.wait(for_s))

    def close(self) -> None:
        """Stop, whatever it waits for."""
        self._stopping.set()
        self._session.close()
        self._thread.join(LONGEST_S)
        assert not self._thread.is_alive()

    def _take(self) -> None:
        batch = self._inbox.take()
        if batch:
            self.batches.append(batch)
        for change in batch:
            self.store.apply(change)
