"""Lets go of flows that have been silent for too long, in bounded steps.

A flow expires as a whole: its state is that of its client side, and it is as old as the last packet
that any of its entries saw. Nothing is kept from one round to the next, so a restart costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from backends.ebpf.driver.clients import Clients
from backends.ebpf.driver.flow_layout import STATES, TICK_NS, FlowFlag, Side
from backends.ebpf.driver.flow_map import FlowMap
from backends.ebpf.driver.timeouts import Limits, Timeouts
from backends.kernel.bpf.maps import Map

_EVERY_S = 5.0
_LEAST_PAUSES = 20  # a round is followed by a pause of so many times its length
_ORPHAN_TICKS = 2400  # ten minutes: no flow is born that slowly
_ORPHANS_EVERY = 60  # rounds


class Sweep:
    """Goes round the map of flows of one family again and again.

    `flows` is how many there were in the last whole round, None before its end; those that the
    kernel's own tracking translates do not count. `expired` and `orphans` are totals: flows that
    had their time, and entries without a flow or of a protocol that programs do not
    track, of which there should be none.
    """

    def __init__(
        self,
        maps: Mapping[str, Map],
        *,
        clock: Callable[[], float] = time.monotonic,
        timeouts: Callable[[], Timeouts] = Timeouts.of_node,
    ) -> None:
        self._map = FlowMap(maps["flows"])
        self._clients = Clients(maps["clients"])
        self._clock = clock
        self._timeouts = timeouts
        self._limits: Limits = {}
        self._round: Iterator[None] | None = None
        self._rounds = 0
        self._next_s = clock()
        self._spent_s = 0.0
        self._counted = 0
        self.flows: int | None = None
        self.expired = 0
        self.orphans = 0

    def tend(self, budget_s: float) -> bool:
        """Go on with a round, or begin one if it is time; return whether it is to be continued.

        Ends soon after `budget_s`, whatever there is to do. Raises BackendError.
        """
        started = self._clock()
        if self._round is None:
            if started < self._next_s:
                return False
            self._begin()
        finished = self._go_on(started + budget_s)
        self._spent_s += self._clock() - started
        if finished:
            self._end()
        return not finished

    def _begin(self) -> None:
        self._round = self._steps()
        self._limits = self._timeouts().limits()
        self._counted = 0
        self._spent_s = 0.0

    def _go_on(self, until_s: float) -> bool:
        """Return whether the round is over."""
        assert self._round is not None
        return not any(self._clock() >= until_s for _ in self._round)

    def _steps(self) -> Iterator[None]:
        """Do a whole round, a little each time that the next item is asked for."""
        for keys, values in self._map.entries.raw_parts():
            self._clients.meet(self._map.layout, values)
            yield from self._judge(keys, values)
            yield

    def _end(self) -> None:
        self._round = None
        self._clients.end_round()
        self._rounds += 1
        self.flows = self._counted
        self._next_s = self._clock() + max(_EVERY_S, _LEAST_PAUSES * self._spent_s)

    def _judge(self, keys: bytearray, values: bytearray) -> Iterator[None]:
        now, limits = int(self._clock() * 1e9) // TICK_NS, self._limits
        silent: list[tuple[int, int]] = []
        lost: list[tuple[int, int]] = []
        unknown: list[int] = []
        for number, (stamp, state, side, flags, protocol) in enumerate(
            self._map.layout.columns(keys, values)
        ):
            if protocol not in limits:
                unknown.append(number)
            elif side == Side.CLIENT:
                self._counted += not flags & FlowFlag.KERNELS
                if now - stamp > limits[protocol][state % STATES]:
                    silent.append((number, protocol))
            elif now - stamp > _ORPHAN_TICKS:
                lost.append((number, protocol))
        for number in unknown:
            self._remove_alone(keys, values, number)
            yield
        for number, protocol in silent:
            self._let_go(values, number, protocol, now)
            yield
        if self._rounds % _ORPHANS_EVERY == 0:
            for number, protocol in lost:
                self._look_for_flow(keys, values, number, protocol)
                yield

    def _let_go(self, values: bytearray, number: int, protocol: int, now: int) -> None:
        """Remove a flow unless any of its entries saw a packet, as late as by now."""
        entry = self._map.layout.entry(values, number)
        whole = self._map.whole(entry, protocol)
        if not whole:
            return
        silence = now - max(each.stamp for each in whole.values())
        if silence > self._limits[protocol][entry.state % STATES]:
            expired = self._map.remove_silent(whole)
            self.expired += expired
            self._counted -= expired and not entry.flags & FlowFlag.KERNELS

    def _look_for_flow(
        self, keys: bytearray, values: bytearray, number: int, protocol: int
    ) -> None:
        entry = self._map.layout.entry(values, number)
        client_side = self._map.layout.keys(entry, protocol)[0]
        if self._map.find(client_side, entry.id) is None:
            self._remove_alone(keys, values, number)

    def _remove_alone(self, keys: bytearray, values: bytearray, number: int) -> None:
        key, entry = self._map.layout.key_of(keys, number), self._map.layout.entry(values, number)
        self.orphans += self._map.remove_silent({key: entry})
