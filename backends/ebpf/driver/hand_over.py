"""From a data path of the kernel's own connection tracking to this one, under open connections.

What that one translates it goes on translating. So as long as any of it is open, a TCP segment of
no flow of ours passes, which is reset otherwise; and UDP flows, of which no packet says that it is
the first, are entered as left alone before the programs are attached.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator

from backends.ebpf.driver.device_layout import HostFlag
from backends.ebpf.driver.host import HostSettings
from backends.kernel import conntrack
from backends.kernel.translated import Departing
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow

_EVERYTHING = {
    Family.IPV4: Destinations(networks=(ipaddress.ip_network("0.0.0.0/0"),)),
    Family.IPV6: Destinations(networks=(ipaddress.ip_network("::/0"),)),
}
_ASK_EVERY_S = 5.0  # a look at many connections costs 25 ms


class HandOver:
    """One family's. Any call may raise BackendError.

    `leave_alone` enters flows into the programs' map of flows.
    """

    def __init__(
        self,
        family: Family,
        host: HostSettings,
        leave_alone: Callable[[Iterable[Flow]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = family
        self._host = host
        self._leave_alone = leave_alone
        self._clock = clock
        self._departing = Departing(family)
        self._next_s = clock()

    @property
    def lasts(self) -> bool:
        """Whether there may be connections of another data path."""
        return HostFlag.HAND_OVER in self._host.read().flags

    def begin(self) -> None:
        """Note what there is, before the programs see a packet."""
        self._host.set(HostFlag.HAND_OVER, on=True)
        self._leave_alone(self._translated(_EVERYTHING[self._family]))
        self._departing = Departing(self._family)
        self._next_s = self._clock()

    def tend(self) -> None:
        """End it once what there was has ended."""
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + _ASK_EVERY_S
        if self.lasts and self._departing.ended():
            self._host.set(HostFlag.HAND_OVER, on=False)

    def flows(self, wanted: Destinations) -> Iterator[Flow]:
        """Yield what the kernel's tracking translates to `wanted`, while this lasts."""
        if self.lasts:
            yield from self._translated(wanted)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows from the kernel's tracking; return how many still existed."""
        return conntrack.delete(self._family, flows)

    def _translated(self, wanted: Destinations) -> Iterator[Flow]:
        for flow in conntrack.list_udp(self._family, wanted):
            reached = (flow.destination, flow.destination_port)
            if (flow.reply_source, flow.reply_source_port) != reached:
                yield flow
