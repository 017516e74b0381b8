"""Table maps made of dicts, that refuse what the kernel's refuse."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from backends.ebpf.driver.table import TableMaps
from backends.ebpf.render.layout import Layout, TableMap, layout
from backends.ebpf.render.renderer import Renderer
from backends.kernel.bpf.maps import BatchRefusal, MapType, Shape
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.core.addresses import Family
from kproxy.run.loop.reconcile import Reconciler
from tests.support.ebpf.entries import SIZES


class FakeMap:
    """One map; `wrote` is called after each entry that was written or removed.

    `refuses`: an errno for the next writes, None for what an ordinary map says.
    """

    def __init__(self, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.entries: dict[bytes, bytes] = {}
        self.wrote: Callable[[], None] = lambda: None
        self.refuses: int | None = None

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def update(self, key: bytes, value: bytes) -> None:
        assert len(key) == self.shape.key_size
        assert len(value) == self.shape.value_size
        full = key not in self.entries and len(self.entries) >= self.shape.max_entries
        number = self.refuses or (errno.E2BIG if full else None)
        if number is not None:
            raise KernelRefusal(f"writing the map {self.name}", number)
        self.entries[key] = value
        self.wrote()

    def update_many(self, entries: Mapping[bytes, bytes]) -> None:
        for applied, (key, value) in enumerate(entries.items()):
            try:
                self.update(key, value)
            except KernelRefusal as refusal:
                doing = f"writing the map {self.name}"
                raise BatchRefusal(doing, refusal.number, applied) from refusal

    def delete_many(self, keys: Collection[bytes]) -> int:
        assert self.shape.type != MapType.ARRAY
        removed = 0
        for key in keys:
            if self.entries.pop(key, None) is not None:
                removed += 1
                self.wrote()
        return removed

    def parts(self) -> Iterator[list[tuple[bytes, bytes]]]:
        yield list(self.entries.items())

    def raw_parts(self, at_once: int) -> Iterator[tuple[bytearray, bytearray]]:
        yield bytearray(b"".join(self.entries)), bytearray(b"".join(self.entries.values()))


def fake_maps(family: Family, sizes: Mapping[str, int]) -> dict[str, FakeMap]:
    """Return empty maps of a family, by their names."""
    maps = {
        of.map_name: FakeMap(of.map_name, _shape(layout(family), of, sizes[of.map_name]))
        for of in TableMap
    }
    rules = maps[TableMap.TABLE_RULES.map_name]
    rules.entries[bytes(4)] = bytes(rules.shape.value_size)
    return maps


def _shape(of_family: Layout, of: TableMap, size: int) -> Shape:
    key_size, value_size = {
        TableMap.FRONTENDS: (of_family.frontend_key.size, of_family.frontend.size),
        TableMap.CHUNKS: (of_family.chunk_key.size, of_family.chunk_size),
        TableMap.MEMBERS: (of_family.member_key.size, of_family.member.size),
        TableMap.SOURCE_RANGES: (of_family.source_key.size, 1),
        TableMap.UNCLAIMED_NETWORKS: (of_family.network_key.size, 1),
        TableMap.NODE_PORT_NETWORKS: (of_family.network_key.size, 1),
        TableMap.TABLE_RULES: (4, of_family.rules.size),
    }[of]
    kind = MapType.ARRAY if of is TableMap.TABLE_RULES else MapType.HASH
    return Shape(kind, key_size, value_size, size, 0)


class FakeClaims:
    """Keeps what was claimed."""

    def __init__(self) -> None:
        self.frontends: set[bytes] = set()
        self.endpoints: set[bytes] = set()
        self.networks: set[tuple[bytes, int]] = set()

    def add(self, addresses: Iterable[bytes]) -> None:
        self.frontends.update(addresses)

    def add_endpoints(self, addresses: Iterable[bytes]) -> None:
        self.endpoints.update(addresses)

    def add_networks(self, networks: Iterable[tuple[bytes, int]]) -> None:
        self.networks.update(networks)


class FakeNode:
    """Maps of a family, and what writes to them, as often as it is started."""

    def __init__(self, family: Family = Family.IPV4) -> None:
        self.family = family
        self.maps = fake_maps(family, SIZES)
        self.now = 0.0
        self.start()

    def disturbed(self) -> bool:
        """Ask, with enough time since all before for all that there is to be compared."""
        self.now += 3600
        self.tables.tend()
        return self.reconciler.disturbed()

    def start(self) -> None:
        """Forget everything but the maps."""
        self.claimed = FakeClaims()
        renderer = Renderer(self.family, SIZES)
        self.tables = TableMaps(self.maps, renderer, self.claimed, lambda: self.now)
        self.reconciler = Reconciler(self.tables, lambda: ())

    def image(self) -> dict[bytes, bytes]:
        """Return what the maps hold."""
        return {
            of.prefix + key: value
            for of in TableMap
            for key, value in self.maps[of.map_name].entries.items()
        }

    def follow(self, wrote: Callable[[], None]) -> None:
        """Have `wrote` called after each entry that is written or removed."""
        for each in self.maps.values():
            each.wrote = wrote
