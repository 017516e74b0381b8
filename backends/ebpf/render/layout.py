"""The structs of ebpf/include/kproxy/service.h as bytes. Pure.

Addresses, ports and digests are bytes already; numbers are in the machine's order.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
import sys
from collections.abc import Iterator

from kproxy.core.addresses import Family, Network
from kproxy.core.objects import Protocol

TARGETS_PER_CHUNK = 16
MAX_TARGETS = 0xFFFF
"""How many targets a list may have: positions and counts have 16 bits."""

FRONTEND_SOURCES = 1
NO_DIGEST = bytes(8)
ANY_PORT = bytes(2)
ANY_PROTOCOL = 0


class TableMap(enum.Enum):
    """The maps of service_maps.h, by the byte that begins an image key of theirs."""

    FRONTENDS = 1
    CHUNKS = 2
    MEMBERS = 3
    SOURCE_RANGES = 4
    UNCLAIMED_NETWORKS = 5
    NODE_PORT_NETWORKS = 6
    TABLE_RULES = 7

    __hash__ = object.__hash__  # an Enum's own is written in Python

    def __init__(self, number: int) -> None:
        self.prefix = bytes([number])
        self.map_name = self.name.lower()


class Use(enum.IntEnum):
    """enum use."""

    FORWARD = 0
    REJECT = 1
    DROP = 2


class Via(enum.IntEnum):
    """enum via."""

    CLUSTER_IP = 0
    EXTERNAL_IP = 1
    LOAD_BALANCER = 2
    NODE_PORT = 3


class Unclaimed(enum.IntEnum):
    """enum unclaimed."""

    PASS = 1
    DROP = 2


class LocalPodsBy(enum.IntEnum):
    """enum local_pods."""

    UNDETECTED = 0
    NETWORK = 1
    DEVICE = 2


PROTOCOL_NUMBER = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


class Record(struct.Struct):
    """A struct; `fields` are (name, format), and what has no name pads."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        super().__init__("=" + "".join(kind for _, kind in fields))
        self._fields = fields

    def offsets(self) -> Iterator[tuple[str, int]]:
        """Yield each field's name and where it begins."""
        before = "="
        for name, kind in self._fields:
            if name:
                yield name, struct.calcsize(before)
            before += kind


class Layout:
    """The structs of one family. A key's Record is what follows the map's byte."""

    decision = Record(("base", "H"), ("count", "H"), ("use", "B"), ("masquerade", "B"), ("", "2x"))
    frontend = Record(
        ("service", "8s"),
        ("list", "8s"),
        ("by_origin", "24s"),
        ("affinity_s", "I"),
        ("via", "B"),
        ("flags", "B"),
        ("", "2x"),
    )
    chunk_key = Record(("list", "8s"), ("number", "I"), ("", "4x"))
    member = Record(("position", "I"))

    def __init__(self, family: Family) -> None:
        self.family = family
        wide = f"{family.bits // 8}s"
        self.unspecified = bytes(family.bits // 8)
        self.frontend_key = Record(("address", wide), ("port", "2s"), ("protocol", "B"), ("", "x"))
        self.target = Record(("address", wide), ("port", "2s"), ("local", "B"), ("", "x"))
        self.chunk_size = TARGETS_PER_CHUNK * self.target.size
        end = "2x" if family is Family.IPV4 else "6x"
        self.member_key = Record(("list", "8s"), ("address", wide), ("port", "2s"), ("", end))
        self.source_key = Record(("bits", "I"), ("service", "8s"), ("address", wide))
        self.network_key = Record(("bits", "I"), ("address", wide))
        self.rules = Record(
            ("pod_network", wide), ("pod_mask", wide), ("local_pods", "B"), ("", "7x")
        )

    def network(self, of: TableMap, network: Network) -> bytes:
        """Return the image key of a network."""
        address = network.network_address.packed
        return of.prefix + self.network_key.pack(network.prefixlen, address)

    def source(self, service: bytes, network: Network) -> bytes:
        """Return the image key of a source range of a service port."""
        bits, address = 8 * len(service) + network.prefixlen, network.network_address.packed
        return TableMap.SOURCE_RANGES.prefix + self.source_key.pack(bits, service, address)

    def chunk(self, digest: bytes, number: int) -> bytes:
        """Return the image key of a part of a list."""
        return TableMap.CHUNKS.prefix + self.chunk_key.pack(digest, number)

    def list_of(self, key: bytes) -> bytes:
        """Return the digest in the image key of a chunk or a member."""
        return key[1 : 1 + len(NO_DIGEST)]

    def service_of(self, key: bytes) -> bytes:
        """Return the digest in the image key of a source range."""
        return key[5 : 5 + len(NO_DIGEST)]

    def bits(self, key: bytes) -> int:
        """Return how long the network in the image key of an LPM map is."""
        return int.from_bytes(key[1:5], sys.byteorder)

    def is_wildcard(self, key: bytes) -> bool:
        """Say whether the image key of a frontend is one for any other port."""
        return key[-2] == ANY_PROTOCOL

    def detects_pods(self, rules: bytes) -> bool:
        """Say whether node rules tell local pods apart."""
        _, _, local_pods = self.rules.unpack(rules)
        return LocalPodsBy(local_pods) is not LocalPodsBy.UNDETECTED

    def wildcard(self, address: str) -> bytes:
        """Return the image key of what any other port of a clusterIP gets."""
        return self.frontend_at(packed(address), ANY_PORT, ANY_PROTOCOL)

    def frontend_at(self, address: bytes, port: bytes, protocol: int) -> bytes:
        """Return the image key of a frontend."""
        return TableMap.FRONTENDS.prefix + self.frontend_key.pack(address, port, protocol)


@functools.cache
def layout(family: Family) -> Layout:
    """Return the structs of a family."""
    return Layout(family)


def packed(address: str) -> bytes:
    """Return a canonical address in network order."""
    if ":" in address:
        return ipaddress.IPv6Address(address).packed
    return bytes(map(int, address.split(".")))


def port_bytes(port: int) -> bytes:
    """Return a port in network order."""
    return port.to_bytes(2, "big")
