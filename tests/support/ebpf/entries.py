"""What the programs are meant to answer for a packet, from the entries of their maps."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from backends.ebpf.render import layout as abi
from backends.ebpf.render.describe import address_text
from backends.ebpf.render.layout import LocalPodsBy, TableMap, Unclaimed, Use, layout, packed
from backends.ebpf.render.renderer import Renderer
from backends.ebpf.render.service_port import service_digest
from kproxy.core.addresses import Family, endpoint_text, is_loopback
from kproxy.core.resolve import Drop, Forward, Packet, Pass, Reject, Verdict
from kproxy.core.table import (
    ForwardingTable,
    FromInterface,
    FromInterfacePrefix,
    LocalPods,
    TableChanges,
)

SIZES = {each.map_name: 1 << 20 for each in TableMap}
_OUTSIDE, _POD, _NODE = range(3)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a lookup: `use` None lets the packet pass.

    Endpoints are "ip:port"; those in `masqueraded` see the node's address.
    """

    use: Use | None
    service: bytes = abi.NO_DIGEST
    via: abi.Via | None = None
    endpoints: frozenset[str] = frozenset()
    masqueraded: frozenset[str] = frozenset()
    affinity_s: int = 0


PASS = Answer(None)


def of_verdict(verdict: Verdict) -> Answer:
    """Return what the programs are to answer where `resolve()` says this."""
    match verdict:
        case Pass():
            return PASS
        case Drop(service=service, via=via) | Reject(service=service, via=via):
            return Answer(
                use=Use.DROP if isinstance(verdict, Drop) else Use.REJECT,
                service=service_digest(service) if service else abi.NO_DIGEST,
                via=abi.Via[via.name] if via else None,
            )
        case Forward():
            masqueraded = verdict.targets if verdict.masquerade else verdict.hairpin
            return Answer(
                use=Use.FORWARD,
                service=service_digest(verdict.service),
                via=abi.Via[verdict.via.name],
                endpoints=frozenset(map(str, verdict.targets)),
                masqueraded=frozenset(map(str, masqueraded)),
                affinity_s=verdict.affinity_timeout_s or 0,
            )


class Entries:
    """The maps of one family, kept up to date by a renderer."""

    def __init__(self, family: Family, sizes: Mapping[str, int] = SIZES) -> None:
        self.renderer = Renderer(family, sizes)
        self.layout = layout(family)
        self.image: dict[bytes, bytes] = {}

    def update(self, changes: TableChanges) -> dict[bytes, bytes | None]:
        """Take changes in; return the entries that differ now."""
        differing = {}
        for key, value in self.renderer.update(changes).items():
            if self.image.get(key) != value:
                differing[key] = value
            if value is None:
                self.image.pop(key, None)
            else:
                self.image[key] = value
        return differing

    def keys(self, of: TableMap) -> set[bytes]:
        """Return the image keys of one map."""
        return {key for key in self.image if key[0] == of.value}

    def answer(self, packet: Packet, local_addresses: Collection[str]) -> Answer:
        """Look a packet up in the order of the programs."""
        address, port = packed(packet.destination), abi.port_bytes(packet.port)
        number = abi.PROTOCOL_NUMBER[packet.protocol]
        own = is_loopback(packet.destination) or packet.destination in local_addresses
        from_node = is_loopback(packet.source) or packet.source in local_addresses
        found = self.image.get(self.layout.frontend_at(address, port, number))
        if found is None and own:
            if not self._holds_node_ports(packet.destination, from_node=from_node):
                return PASS
            key = self.layout.frontend_at(self.layout.unspecified, port, number)
            found = self.image.get(key)
            if found is None:
                return PASS
        if found is None:
            found = self.image.get(self.layout.wildcard(packet.destination))
        if found is None:
            verdict = self._longest(TableMap.UNCLAIMED_NETWORKS, b"", packet.destination)
            return Answer(Use.DROP) if verdict == Unclaimed.DROP else PASS
        origin = _NODE if from_node else _OUTSIDE
        return self._at_frontend(found, packet, _POD if self._is_pod(packet) else origin)

    def _at_frontend(self, value: bytes, packet: Packet, origin: int) -> Answer:
        service, digest, by_origin, affinity_s, via, flags = self.layout.frontend.unpack(value)
        via = abi.Via(via)
        limited = bool(flags & abi.FRONTEND_SOURCES)
        if limited and self._longest(TableMap.SOURCE_RANGES, service, packet.source) is None:
            return Answer(Use.DROP, service, via)
        base, count, use, masquerade = list(self.layout.decision.iter_unpack(by_origin))[origin]
        if use != Use.FORWARD:
            assert (base, count, masquerade) == (0, 0, 0)
            return Answer(Use(use), service, via)
        endpoints = self.targets(digest)[base : base + count]
        assert len(endpoints) == count > 0
        if affinity_s:
            assert self._positions(digest, endpoints) == list(range(base, base + count))
        self_chosen = {each for each in endpoints if each[0] == packet.source}
        return Answer(
            use=Use.FORWARD,
            service=service,
            via=via,
            endpoints=frozenset(endpoint_text(*each) for each in endpoints),
            masqueraded=frozenset(
                endpoint_text(*each) for each in (endpoints if masquerade else self_chosen)
            ),
            affinity_s=affinity_s,
        )

    def targets(self, digest: bytes) -> list[tuple[str, int]]:
        """Return the (address, port) of a list, in the order of its positions."""
        found: list[tuple[str, int]] = []
        number = 0
        while (chunk := self.image.get(self.layout.chunk(digest, number))) is not None:
            for address, port, _local in self.layout.target.iter_unpack(chunk):
                if any(port):
                    found.append((address_text(address), int.from_bytes(port, "big")))
            number += 1
        return found

    def _positions(self, digest: bytes, endpoints: list[tuple[str, int]]) -> list[int]:
        positions = []
        for address, port in endpoints:
            raw = self.layout.member_key.pack(digest, packed(address), abi.port_bytes(port))
            positions += self.layout.member.unpack(self.image[TableMap.MEMBERS.prefix + raw])
        return positions

    def _holds_node_ports(self, destination: str, *, from_node: bool) -> bool:
        admitted = self._longest(TableMap.NODE_PORT_NETWORKS, b"", destination) == 1
        return admitted and (from_node or not is_loopback(destination))

    def _is_pod(self, packet: Packet) -> bool:
        (value,) = (self.image[key] for key in self.keys(TableMap.TABLE_RULES))
        network, mask, local_pods = self.layout.rules.unpack(value)
        match LocalPodsBy(local_pods):
            case LocalPodsBy.NETWORK:
                source = packed(packet.source)
                return bytes(s & m for s, m in zip(source, mask, strict=True)) == network
            case LocalPodsBy.DEVICE:
                return is_flagged(self.renderer.local_pods, packet.in_interface)
            case LocalPodsBy.UNDETECTED:
                return False

    def _longest(self, of: TableMap, before: bytes, address: str) -> int | None:
        """Return the value of the longest network that holds an address."""
        wanted, found, most = before + packed(address), None, -1
        for key in self.keys(of):
            bits, prefix = struct.unpack_from("=I", key, 1)[0], key[5:]
            shift = 8 * len(prefix) - bits
            if int.from_bytes(prefix) >> shift == int.from_bytes(wanted) >> shift and bits > most:
                most, found = bits, self.image[key][0]
        return found


def is_flagged(local_pods: LocalPods, name: str | None) -> bool:
    """Say whether the driver of devices would flag an interface as one of local pods."""
    match local_pods:
        case FromInterface(wanted):
            return name == wanted
        case FromInterfacePrefix(prefix):
            return name is not None and name.startswith(prefix)
        case _:
            return False


def image_of(table: ForwardingTable) -> dict[bytes, bytes]:
    """Return all entries of a whole table."""
    entries = Entries(table.family)
    entries.update(table.everything())
    return entries.image
