"""Sockets that hooks connected to endpoints: what the maps say of them, and their end.

No program sees what a UDP socket sends after that, so those whose endpoint left are destroyed. A
hook takes out what closes, but for sockets of the kernel's own (NFS, MPTCP), and none while it is
detached: the rest is found here. Layouts: ebpf/include/kproxy/socket.h.
"""

from __future__ import annotations

import logging
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from backends.ebpf.driver.namespaces import Elsewhere, Namespaces
from backends.kernel import socket_diag
from backends.kernel.bpf.maps import Map
from backends.kernel.destinations import address_text
from backends.kernel.socket_diag import ConnectedSocket
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.objects import Protocol
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TRANSLATED_SOCKETS = {Protocol.TCP: "tcp_sockets", Protocol.UDP: "udp_sockets"}
"""The maps of connected sockets, by protocol."""

_COOKIE = struct.Struct("=Q")
_SWEEPS_APART_S = 20.0


class _Translated(NamedTuple):
    """A struct connected."""

    netns: int
    frontend: bytes
    endpoint: bytes
    frontend_port: int
    endpoint_port: int


class TranslatedSockets:
    """The connected sockets of one family and protocol that hooks translated, in any namespace."""

    def __init__(
        self,
        family: Family,
        protocol: Protocol,
        *,
        sockets: Map,
        clock: Callable[[], float],
        seen: Namespaces,
    ) -> None:
        wide = family.bits // 8
        self._layout = struct.Struct(f"=Q{wide}s{wide}s2s2s4x")
        self._family = family
        self._protocol = protocol
        self._map = sockets
        self._clock = clock
        self._namespaces = seen
        self._swept_s = clock()
        self._unswept: dict[int, dict[int, _Translated]] = {}
        self._missing: set[int] = set()  # when they were looked for last
        self._told = False

    def flows(self, wanted: Destinations) -> Iterator[Flow]:
        """Yield those to `wanted`; `handle` is the socket's number. Raises BackendError."""
        for netns, entries in self._by_namespace().items():
            asked = {
                cookie: entry
                for cookie, entry in entries.items()
                if wanted.admit(self._flow(cookie, entry, None))
            }
            living = self._connected(netns) if asked else None
            for cookie, found in (living or {}).items():
                entry = asked.get(cookie)
                if entry is not None and _leads_to(found, entry):
                    yield self._flow(cookie, entry, found)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Destroy sockets; return how many were still as `flows` has them. Raises BackendError.

        A socket that was connected anew since then, straight to the same endpoint say, lives.
        """
        wanted: dict[int, dict[int, _Translated]] = defaultdict(dict)
        for flow in flows:
            value = self._map.lookup(flow.handle)
            if value is None:
                continue
            entry, cookie = self._parsed(value), _COOKIE.unpack(flow.handle)[0]
            if _places(self._flow(cookie, entry, None)) == _places(flow):
                wanted[entry.netns][cookie] = entry
        return sum(self._destroy(netns, entries) for netns, entries in wanted.items())

    def tend(self, budget_s: float) -> bool:
        """Forget sockets that closed unseen, now and then; say whether there is more to do.

        A socket is hashed only after its hook ran, so one must be missing twice. One that cannot
        be looked for may live. Raises BackendError.
        """
        end_s = self._clock() + budget_s
        if not self._unswept and self._clock() - self._swept_s >= _SWEEPS_APART_S:
            self._swept_s = self._clock()
            self._unswept = self._by_namespace()
            self._missing &= {each for entries in self._unswept.values() for each in entries}
        while self._unswept:
            self._sweep(*self._unswept.popitem())
            if self._clock() >= end_s:
                break
        return bool(self._unswept)

    def _sweep(self, netns: int, entries: dict[int, _Translated]) -> None:
        found = self._connected(netns)
        if found is None:
            return
        living = {each for each, there in found.items() if _leads_to(there, entries.get(each))}
        missing = entries.keys() - living
        self._map.delete_many([_COOKIE.pack(each) for each in missing & self._missing])
        self._missing = (self._missing - entries.keys()) | missing

    def _destroy(self, netns: int, entries: dict[int, _Translated]) -> int:
        def work() -> int:
            found = socket_diag.connected(self._family, self._protocol)
            stale = [each for each in found if _leads_to(each, entries.get(each.cookie))]
            return sum(map(socket_diag.destroy, stale))

        count = self._ask(netns, work)
        self._map.delete_many([_COOKIE.pack(cookie) for cookie in entries])
        return count or 0

    def _by_namespace(self) -> dict[int, dict[int, _Translated]]:
        found: dict[int, dict[int, _Translated]] = defaultdict(dict)
        for key, value in self._map.items():
            entry = self._parsed(value)
            found[entry.netns][_COOKIE.unpack(key)[0]] = entry
        return found

    def _parsed(self, value: bytes) -> _Translated:
        netns, frontend, endpoint, frontend_port, endpoint_port = self._layout.unpack(value)
        ports = (int.from_bytes(port, "big") for port in (frontend_port, endpoint_port))
        return _Translated(netns, frontend, endpoint, *ports)

    def _flow(self, cookie: int, entry: _Translated, found: ConnectedSocket | None) -> Flow:
        """Return a socket as a flow; its own end is missing as long as it was not found."""
        source = address_text(found.source) if found else ""
        source_port = found.source_port if found else 0
        return Flow(
            *(source, source_port),
            *(address_text(entry.frontend), entry.frontend_port),
            *(address_text(entry.endpoint), entry.endpoint_port),
            *(source, source_port),
            zone=0,
            handle=_COOKIE.pack(cookie),
        )

    def _connected(self, netns: int) -> dict[int, ConnectedSocket] | None:
        """Return the connected sockets of a namespace; None if it is gone or out of reach."""

        def work() -> dict[int, ConnectedSocket]:
            found = socket_diag.connected(self._family, self._protocol)
            return {each.cookie: each for each in found}

        return self._ask(netns, work)

    def _ask(self, netns: int, question: Callable[[], Answer]) -> Answer | None:
        try:
            return self._namespaces.ask(netns, question)
        except Elsewhere:
            return None
        except BackendError as error:
            if not self._told:
                self._told = True
                log.warning("%s: sockets of UDP may keep endpoints that left", error)
            return None


def _leads_to(found: ConnectedSocket, entry: _Translated | None) -> bool:
    """Say whether a socket still speaks to the endpoint that it was translated to."""
    return entry is not None and (found.peer, found.peer_port) == (
        entry.endpoint,
        entry.endpoint_port,
    )


def _places(flow: Flow) -> tuple[str, int, str, int]:
    return flow.destination, flow.destination_port, flow.reply_source, flow.reply_source_port
