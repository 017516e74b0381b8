"""Asks the programs' own code, in the kernel, what a connection deserves."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.ebpf.compiler import load_unit
from backends.ebpf.driver import device_layout
from backends.ebpf.driver.objects import private
from backends.ebpf.driver.table import TableMaps
from backends.ebpf.render import layout as abi
from backends.ebpf.render.describe import address_text
from backends.ebpf.render.layout import Use, packed
from backends.ebpf.render.renderer import Renderer
from backends.kernel.bpf import programs
from kproxy.core.addresses import Family, endpoint_text, is_loopback
from kproxy.core.image import diff
from kproxy.core.resolve import Packet
from kproxy.core.table import ForwardingTable
from tests.support.ebpf.entries import PASS, Answer, is_flagged
from tests.support.ebpf.fake_maps import FakeClaims

_SOURCE = Path(__file__).with_name("choose.bpf.c")
_REASONS = Path(__file__).parents[3] / "ebpf" / "include" / "kproxy" / "reason.h"
_HEADER = bytes(14)
_LOOPBACK = {Family.IPV4: ("127.0.0.0", 8), Family.IPV6: ("::1", 128)}
_FEW = ("frontends", "chunks", "members", "affinity")
_USES = {
    "CHOSEN": Use.FORWARD,
    "NO_ENDPOINT": Use.REJECT,
    "UNKNOWN_PORT": Use.REJECT,
    "NO_LOCAL_ENDPOINT": Use.DROP,
    "SOURCE_NOT_ADMITTED": Use.DROP,
    "UNCLAIMED_ADDRESS": Use.DROP,
}


class Choosing:
    """The program that answers, with maps of its own."""

    def __init__(self, family: Family, bytecode: Path) -> None:
        self.family = family
        sizes = dict.fromkeys(_FEW, 1024)  # maps that hold little are read at once
        self._objects = private([load_unit(_SOURCE, family, cache=bytecode)], sizes)
        self._layout = abi.layout(family)
        wide = f"{family.bits // 8}s"
        self._question = struct.Struct(f"={wide}{wide}2sBB{wide}2sBBI8s")
        enum = re.sub(r"/\*.*?\*/", "", _REASONS.read_text(), flags=re.DOTALL)
        self._reasons = re.findall(r"\w+", enum.partition("{")[2].partition("}")[0])
        maps = self._objects.maps
        address, bits = _LOOPBACK[family]
        maps["own_networks"].update(struct.pack("=I", bits) + packed(address), device_layout.OWN)
        self._tables = self._new_tables()

    def close(self) -> None:
        self._objects.close()

    @contextmanager
    def holding(
        self, table: ForwardingTable, local_addresses: Collection[str]
    ) -> Iterator[Choosing]:
        """Let the maps hold a table, on a node with these addresses."""
        maps = self._objects.maps
        own = {
            packed(each): device_layout.number(1)
            for each in local_addresses
            if not is_loopback(each) and (":" in each) == (self.family is Family.IPV6)
        }
        self._tables = self._new_tables()
        rendered = self._tables.render(table.everything())
        want = {key: value for key, value in rendered.items() if value is not None}
        self._tables.commit(diff(self._tables.observe(), want))
        maps["own_addresses"].update_many(own)
        try:
            yield self
        finally:
            maps["own_addresses"].delete_many(own)
            affinity = maps["affinity"]
            affinity.delete_many([key for key, _ in affinity.items()])

    def answer(self, packet: Packet) -> Answer:
        """Return what is chosen: one endpoint, and whether it sees the node's address."""
        from_pod = is_flagged(self._tables.local_pods, packet.in_interface)
        question = self._question.pack(
            packed(packet.source),
            packed(packet.destination),
            abi.port_bytes(packet.port),
            abi.PROTOCOL_NUMBER[packet.protocol],
            from_pod,
            *(self._layout.unspecified, bytes(2), 0, 0, 0, bytes(8)),
        )
        run = programs.run(self._objects.programs["ask"], _HEADER + question)
        *_, target, port, number, masquerade, via, service = self._question.unpack(
            run.data[len(_HEADER) :]
        )
        reason = self._reasons[number]
        use = _USES.get(reason)
        if use is None:
            assert reason in ("NOT_A_SERVICE", "NO_NODE_PORT_HERE"), reason
            return PASS
        endpoint = endpoint_text(address_text(target), int.from_bytes(port, "big"))
        endpoints = frozenset({endpoint} if use is Use.FORWARD else ())
        return Answer(
            use=use,
            service=service,
            via=None if reason == "UNCLAIMED_ADDRESS" else abi.Via(via),
            endpoints=endpoints,
            masqueraded=endpoints if masquerade else frozenset(),
        )

    def _new_tables(self) -> TableMaps:
        maps = self._objects.maps
        sizes = {name: each.shape.max_entries for name, each in maps.items()}
        return TableMaps(maps, Renderer(self.family, sizes), FakeClaims())
