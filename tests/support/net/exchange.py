"""Sends packets into the test network and finds out what became of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import socket
from collections.abc import Callable, Mapping

from kproxy.core.addresses import Family, family_of
from kproxy.core.objects import Protocol
from tests.support.net import plan
from tests.support.net.ancillary import SO_RCVBUFFORCE, drained
from tests.support.net.clients import Attempt
from tests.support.net.loop import Loop
from tests.support.net.namespace import Namespace
from tests.support.net.observed import Left, Observed, Probe, Silent
from tests.support.net.responders import Responder
from tests.support.net.sctp import SctpPeer
from tests.support.net.wire import Addressing, addressing
from tests.support.waiting import SLOWER

# A packet's whole way lies in the sending system call, so an answer that is not here after this
# long will not come.
_QUIET_S = 0.15 * SLOWER
_LONGEST_S = 10.0 * SLOWER
_LATE = 10  # a busy machine may yet have to take a packet from one namespace to the next
_TURNS = int(_LONGEST_S / _QUIET_S) * 1000
_ETH_P_ALL = 0x0003
_ETH_P = {0x0800, 0x86DD}
_LARGEST_HEADERS = 128
_TAP_BUFFER_BYTES = 8 << 20
_PACKET_OUTGOING = 4
_SOURCE_PORTS = range(33000, 65000)  # above the NodePorts; each connection has one of its own

_PLACE_OF = {
    **plan.PLACES,
    **{plan.ipv6_of(address): place for address, place in plan.PLACES.items()},
}


class Exchange:
    """The servers in every namespace, the taps on the node and the outside, and the probes."""

    def __init__(self, namespaces: Mapping[str, Namespace]) -> None:
        self._namespaces = namespaces
        self._loop = Loop()
        self._served: dict[str, set[int]] = {place: set() for place in namespaces}
        self._peers: dict[tuple[str, Family], SctpPeer] = {}
        self._ports = itertools.cycle(_SOURCE_PORTS)
        self._pending: dict[Addressing, _Pending] = {}
        for place, namespace in namespaces.items():
            with namespace.entered():
                for family in Family:
                    self._peers[place, family] = SctpPeer(
                        self._loop, place=place, family=family, ports=self._served[place]
                    )
        self._tap("node", self._seen_at_node)
        self._tap("outside", self._seen_outside)

    def serve(self, place: str, ports: set[int]) -> None:
        """Answer on these ports in one namespace, besides those served already."""
        new = ports - self._served[place]
        with self._namespaces[place].entered():
            for family, port in itertools.product(Family, sorted(new)):
                Responder(self._loop, place=place, family=family, port=port)
        self._served[place] |= new

    def send(self, probes: list[Probe]) -> list[Observed]:
        """Send all probes and return what became of each."""
        pending = [self._start(probe) for probe in probes]
        late = 0
        for _ in range(_TURNS):
            if not any(p.observed is None for p in pending):
                break
            if not self._loop.turn(_QUIET_S):
                late += 1
                if all(p.observed or p.arrived for p in pending) or late > _LATE:
                    break
        for one in pending:
            one.stop()
        self._pending.clear()
        return [one.observed or Silent(one.arrived) for one in pending]

    def close(self) -> None:
        """Close every socket."""
        self._loop.shut_down()

    def _start(self, probe: Probe) -> _Pending:
        place = _PLACE_OF[probe.source]
        source_port = next(self._ports)
        pending = _Pending(arrived=place == "node")
        sent = Addressing(probe.protocol, probe.source, source_port, probe.destination, probe.port)
        self._pending[sent] = pending
        with self._namespaces[place].entered():
            if probe.protocol is Protocol.SCTP:
                peer = self._peers[place, family_of(probe.source)]
                pending.stop = lambda: peer.forget(source_port)
                peer.send(probe, source_port, pending.report)
            else:
                pending.stop = Attempt(self._loop, probe, source_port, pending.report).give_up
        # Read what is there at once, or the taps' buffers overflow.
        while self._loop.turn(0):
            pass
        return pending

    def _tap(self, place: str, seen: Callable[[Addressing], None]) -> None:
        """Call `seen` for each packet that comes in at a namespace.

        Those who listen for all protocols have it before any program at a device does.
        """
        with self._namespaces[place].entered():
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            tap = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _TAP_BUFFER_BYTES)
        self._loop.watch(tap, functools.partial(_read_tap, tap, seen))

    def _seen_at_node(self, packet: Addressing) -> None:
        pending = self._pending.get(packet)
        if pending is not None:
            pending.arrived = True

    def _seen_outside(self, packet: Addressing) -> None:
        if packet.destination in _PLACE_OF:
            return
        for sent, pending in self._pending.items():
            # The source may have been masqueraded; the ports tell whose packet it is all the same.
            if dataclasses.replace(sent, source=packet.source) == packet:
                pending.report(Left(packet.source))


class _Pending:
    """What is known so far of one probe."""

    def __init__(self, *, arrived: bool) -> None:
        self.arrived = arrived
        self.observed: Observed | None = None
        self.stop: Callable[[], None] = lambda: None

    def report(self, observed: Observed) -> None:
        """Note what became of the probe; the first to know is right."""
        self.observed = self.observed or observed


def _read_tap(tap: socket.socket, seen: Callable[[Addressing], None]) -> None:
    for data, sender in drained(lambda: tap.recvfrom(_LARGEST_HEADERS)):
        came_in = sender[1] in _ETH_P and sender[2] != _PACKET_OUTGOING
        packet = addressing(data) if came_in else None
        if packet is not None:
            seen(packet)
