"""From a data path of the kernel's own connection tracking to this one, under open connections.

What that one translates it goes on translating. So as long as any of it is open, a TCP segment of
no flow of ours passes, which is reset otherwise; and UDP flows, of which no packet says that it is
the first, are entered as left alone before the programs take new ones.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator

from backends.ebpf.driver.device_layout import HostFlag
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.host import HostSettings
from backends.kernel import conntrack
from backends.kernel.translated import Departing, served_elsewhere
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow

_EVERYTHING = {
    Family.IPV4: Destinations(networks=(ipaddress.ip_network("0.0.0.0/0"),)),
    Family.IPV6: Destinations(networks=(ipaddress.ip_network("::/0"),)),
}
_ASK_EVERY_S = 5.0  # a look at many connections costs 25 ms


class HandOver:
    """One family's. Any call may raise BackendError."""

    def __init__(
        self,
        family: Family,
        host: HostSettings,
        flows: Flows,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = family
        self._host = host
        self._flows = flows
        self._clock = clock
        self._departing = Departing(family, served_elsewhere)
        self._next_s = clock()

    @property
    def lasts(self) -> bool:
        """Whether there may be connections of another data path."""
        return HostFlag.HAND_OVER in self._host.read().flags

    def begin(self) -> None:
        """Note what there is, before the programs take new connections."""
        self._host.set(HostFlag.HAND_OVER, on=True)
        self._flows.leave_alone(self._translated(_EVERYTHING[self._family]))
        self._departing = Departing(self._family, served_elsewhere)
        self._next_s = self._clock()

    def tend(self) -> None:
        """Let go of flows that ended, and end it once all that there was has ended."""
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + _ASK_EVERY_S
        if not self.lasts:
            return
        self._let_go()
        if self._departing.ended():
            self._host.set(HostFlag.HAND_OVER, on=False)

    def flows(self, wanted: Destinations) -> Iterator[Flow]:
        """Yield what the kernel's tracking translates to `wanted`, while this lasts."""
        if self.lasts:
            yield from self._translated(wanted)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows from the kernel's tracking; return how many still existed."""
        return conntrack.delete(self._family, flows)

    def _let_go(self) -> None:
        """Leave alone no longer what the kernel does not track any more.

        Else a client that speaks again after a long silence would be translated by nobody, where
        the programs cannot ask the kernel themselves.
        """
        left_alone = list(self._flows.left_alone())
        if left_alone:
            tracked = set(map(_client_side, self._translated(_EVERYTHING[self._family])))
            self._flows.forget_flows(
                flow for flow in left_alone if _client_side(flow) not in tracked
            )

    def _translated(self, wanted: Destinations) -> Iterator[Flow]:
        for flow in conntrack.list_udp(self._family, wanted):
            reached = (flow.destination, flow.destination_port)
            if (flow.reply_source, flow.reply_source_port) != reached:
                yield flow


def _client_side(flow: Flow) -> tuple[str, int, str, int]:
    return flow.source, flow.source_port, flow.destination, flow.destination_port
