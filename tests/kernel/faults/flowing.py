"""Conversations that go on all the time in a thread of their own, and new ones all along."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.net.network import Network
from tests.support.node.conversations import Conversation, Conversations
from tests.support.waiting import LONGEST_S, SLOWER

Way = tuple[str, str, Protocol, Family]
"""From which machine, to which frontend ("ip:port"), by what."""

# Shorter than the second after which the kernel sends a lost SYN again: a loss has to show. On a
# slow machine that cannot be told from an answer that takes its time.
_QUIET_S = 0.9 * SLOWER
_PAUSE_S = 0.005 * SLOWER**2  # an emulated processor has the proxy's work to do as well


class Flowing:
    """Speaks in every conversation and opens a new one of each way, round after round.

    Sockets of UDP that are not `connected` ask once more where they hear nothing from the frontend,
    as resolvers do: an answer that is under way while its flow is forgotten is lost, or comes as it
    is.
    """

    def __init__(
        self,
        network: Network,
        pods: Iterable[str],
        ways: Iterable[Way],
        *,
        connected: bool = True,  # also of UDP
    ) -> None:
        self.rounds = 0
        self.silenced: list[str] = []
        self.new_met: set[str] = set()
        self.lasting_met: set[str] = set()
        self._talk = Conversations(network)
        self._talk.serve(*pods)
        self._ways = list(ways)
        self._pods = set(pods)
        self._connected = connected
        self._lasting = {way: self._open(way) for way in self._ways}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flowing:
        self._thread.start()
        self.flow(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._talk.close()

    def flow(self, rounds: int) -> Flowing:
        """Wait until so many whole rounds are over; forget whom those before them met."""
        self._wait(1)
        self.new_met, self.lasting_met = set(), set()
        self._wait(rounds)
        return self

    def end(self) -> None:
        """End all conversations, and begin no others."""
        self._over.set()
        self._thread.join()
        for lasting in self._lasting.values():
            lasting.end()

    def _wait(self, rounds: int) -> None:
        wanted, until = self.rounds + rounds + 1, time.monotonic() + LONGEST_S
        while self.rounds < wanted:
            assert time.monotonic() < until
            assert self._thread.is_alive()
            time.sleep(_PAUSE_S)

    def _run(self) -> None:
        while not self._over.is_set():
            for way, lasting in self._lasting.items():
                self._note(f"{way} goes on", self.lasting_met, lasting)
                new = self._open(way)
                self._note(f"{way} begins", self.new_met, new)
                new.end()
            self.rounds += 1
            time.sleep(_PAUSE_S)

    def _open(self, way: Way) -> Conversation:
        return self._talk.open(*way, connected=self._connected)

    def _note(self, what: str, met: set[str], asked: Conversation) -> None:
        partner = asked.partner(quiet_s=_QUIET_S)
        if partner not in self._pods and asked.is_unconnected:
            partner = asked.partner(quiet_s=_QUIET_S)
        met.add(partner)
        if partner not in self._pods:
            self.silenced.append(f"{what}, round {self.rounds}: {partner}")
