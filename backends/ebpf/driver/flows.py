"""UDP flows that the tc programs translate: listed, forgotten, and left alone."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from backends.ebpf.driver.flow_layout import TICK_NS, End, Entry, FlowFlag, Side
from backends.ebpf.driver.flow_map import FlowMap
from backends.kernel.bpf.maps import Map
from backends.kernel.destinations import PackedDestinations, address_text, packed_address
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow

_ID_BYTES = 4  # at the end of a handle, after the key of the client's side


class Flows:
    """The flows of one family, as their clients see them. Any call may raise BackendError."""

    def __init__(self, family: Family, entries: Map) -> None:
        self._family = family
        self._map = FlowMap(entries)

    def flows(self, wanted: Destinations) -> Iterator[Flow]:
        """Yield the flows to `wanted`; in bounded memory, however many others there are."""
        admits = PackedDestinations(self._family, wanted).admits
        frontend = self._map.layout.frontend
        return self._listed(lambda values, number, _: admits(*frontend(values, number)))

    def left_alone(self) -> Iterator[Flow]:
        """Yield the flows that the kernel's own tracking translates, as `leave_alone` was told."""
        return self._listed(lambda _, __, flags: bool(flags & FlowFlag.KERNELS))

    def _listed(self, admits: Callable[[bytearray, int, int], bool]) -> Iterator[Flow]:
        """Yield flows that are admitted by entries, number among them and flags."""
        layout = self._map.layout
        for keys, values in self._map.entries.raw_parts():
            for number, (_, _, side, flags, protocol) in enumerate(layout.columns(keys, values)):
                if protocol != socket.IPPROTO_UDP or side != Side.CLIENT:
                    continue
                if admits(values, number, flags):
                    key, entry = layout.key_of(keys, number), layout.entry(values, number)
                    yield _flow(entry, key + entry.id.to_bytes(_ID_BYTES))

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows that `flows` named; return how many still existed."""
        removed = 0
        for flow in flows:
            key, id_ = flow.handle[:-_ID_BYTES], int.from_bytes(flow.handle[-_ID_BYTES:])
            entry = self._map.find(key, id_)
            if entry is not None:
                removed += self._map.remove(self._map.whole(entry, socket.IPPROTO_UDP))
        return removed

    def leave_alone(self, flows: Iterable[Flow]) -> int:
        """Let flows pass that the kernel's own tracking translates; return how many there are.

        Programs ask it for them, but can do so in its default zone alone.
        """
        layout = self._map.layout
        stamp = time.monotonic_ns() // TICK_NS
        entries = {}
        for flow in flows:
            client = _end(flow.source, flow.source_port)
            entry = Entry(
                state=0,
                stamp=stamp,
                id=secrets.randbits(32),
                client=client,
                frontend=_end(flow.destination, flow.destination_port),
                endpoint=_end(flow.reply_source, flow.reply_source_port),
                node=_end(flow.reply_destination, flow.reply_destination_port),
                stack_port=client.port,
                side=Side.CLIENT,
                flags=FlowFlag.KERNELS if flow.zone else FlowFlag.KERNELS | FlowFlag.TRACKED,
            )
            key = layout.key(entry.client, entry.frontend, socket.IPPROTO_UDP)
            entries[key] = layout.encode(entry)
        self._map.entries.update_many(entries)
        return len(entries)


def _flow(entry: Entry, handle: bytes) -> Flow:
    return Flow(
        *_where(entry.client),
        *_where(entry.frontend),
        *_where(entry.endpoint),
        *_where(entry.node),
        zone=0,
        handle=handle,
    )


def _where(end: End) -> tuple[str, int]:
    return address_text(end.address), int.from_bytes(end.port)


def _end(address: str, port: int) -> End:
    return End(packed_address(address), port.to_bytes(2))
