"""The forwarding table in the kernel's maps: read, written, watched.

A packet meets the old table or the new one at every step of a write: see `order`.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from backends.ebpf.driver import order
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.comparison import Comparison
from backends.ebpf.driver.order import Step, raw_key
from backends.ebpf.render import reach
from backends.ebpf.render.layout import TableMap
from backends.ebpf.render.renderer import Renderer
from backends.kernel.bpf.maps import BatchRefusal, Map
from backends.kernel.bpf.syscall import KernelRefusal
from kproxy.core.image import Changes, Key
from kproxy.core.table import LocalPods, ServicePortKey, TableChanges
from kproxy.ports.data_path import BackendError

# What a map says that has no room: a hash, an LPM trie, either without memory.
_FULL = {errno.E2BIG, errno.ENOSPC, errno.ENOMEM}

Refused = dict[Key, str]  # what the kernel did not take, with its reasons


class TableMaps:
    """The table maps of one family, by their names, and what renders their entries."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        renderer: Renderer,
        claims: Claims,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maps = {each: maps[each.map_name] for each in TableMap}
        self._renderer = renderer
        self._claims = claims
        self.family = renderer.layout.family
        self._layout = renderer.layout
        self._image: dict[Key, bytes] = {}
        self._count: Counter[TableMap] = Counter()
        self._lacking: Counter[TableMap] = Counter()
        self._comparison = Comparison(self._maps, clock)
        self._disturbed = False
        self._observed = False

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter."""
        patch = self._renderer.update(changes)
        for key, value in patch.items():
            of = _map_of(key)
            self._comparison.expect_anew(of)
            self._count[of] += (value is not None) - (key in self._image)
            if value is None:
                self._image.pop(key, None)
            else:
                self._image[key] = value
        return patch

    def observe(self) -> dict[Key, bytes]:
        """Read back all entries. What is as it was rendered takes no memory a second time."""
        self._disturbed = False
        found: dict[Key, bytes] = {}
        for of in TableMap:
            for key, value in self._entries(of):
                mine = self._image.get(key)
                found[key] = mine if mine is not None and mine == value else value
        if not self._observed:  # an earlier run may have claimed less
            self._observed = True
            self._claim(found)
        return found

    def commit(self, changes: Changes) -> None:
        """Write the changes; all that a full map does not take waits, and all else is written.

        Raises BackendError. What there was no room for is left out of the next rendering then.
        """
        put, drop = changes.put, changes.drop
        self._claim(put)
        while True:
            refused = self._write(put)
            removable = drop - self._still_needed(drop, refused)
            self._remove(removable)
            if not refused:
                return
            if not removable:
                self._give_up(refused)
            # What was removed made room.
            put, drop = {key: put[key] for key in refused}, drop - removable

    def settle(self) -> None:
        """Let what was refused be rendered again, if there is room for it by now."""
        if self._lacking and all(self._has_room(of, n) for of, n in self._lacking.items()):
            self._lacking.clear()
            self._renderer.reopen()

    def tend(self) -> None:
        """Look whether somebody altered entries: at some of the maps, the others follow."""
        self._disturbed = self._disturbed or self._comparison.differs(self._image, self._count)

    def disturbed(self) -> bool:
        """Say whether `tend` has met an entry since they were read that somebody altered."""
        return self._disturbed

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports that are left out, and why."""
        return self._renderer.unheld()

    @property
    def local_pods(self) -> LocalPods:
        """How local pods are recognised; by which device, the entries do not tell."""
        return self._renderer.local_pods

    def counts(self) -> Mapping[str, int]:
        """Return how many entries were rendered for each map, by its name."""
        return {of.map_name: self._count[of] for of in TableMap}

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these entries are made for."""
        return self._renderer.owners(keys)

    def describe(self, key: Key) -> str:
        """Return what an entry is, for logs."""
        return self._renderer.describe(key)

    def _entries(self, of: TableMap) -> Iterator[tuple[Key, bytes]]:
        prefix = of.prefix
        for part in self._maps[of].parts():
            for key, value in part:
                yield prefix + key, value

    def _claim(self, entries: Mapping[Key, bytes]) -> None:
        """Have the programs look at packets that these entries may be about."""
        self._claims.add(reach.frontends(self._layout, entries))
        self._claims.add_endpoints(reach.endpoints(self._layout, entries))
        self._claims.add_networks(reach.dropped_networks(self._layout, entries))

    def _write(self, put: Mapping[Key, bytes]) -> Refused:
        """Write entries; return those that there was no room for, or none for what they need."""
        refused: Refused = {}
        for step in order.of_writing(self._layout, put):
            if refused and step.of is TableMap.FRONTENDS:
                refused |= self._held_back(step, put, refused)
            entries = {key[1:]: put[key] for key in step.keys if key not in refused}
            refused |= self._fill(step.of, entries)
        return refused

    def _fill(self, of: TableMap, entries: Mapping[bytes, bytes]) -> Refused:
        """Write entries of one map; return those that there was no room for."""
        try:
            self._maps[of].update_many(entries)
        except BatchRefusal as refusal:
            if refusal.number not in _FULL:
                raise
            rest = list(entries.items())[refusal.applied :]
        else:
            return {}
        refused: Refused = {}
        for key, value in rest:  # others may be there already, and need no room
            try:
                self._maps[of].update(key, value)
            except KernelRefusal as refusal:
                if refusal.number not in _FULL:
                    raise
                why = f"the map {of.map_name} is full"
                if refusal.number == errno.ENOMEM:
                    why = f"no memory for the map {of.map_name}"
                refused[of.prefix + key] = why
        return refused

    def _held_back(self, frontends: Step, put: Mapping[Key, bytes], refused: Refused) -> Refused:
        """Return the frontends that lead to something that was refused, with its reasons."""
        reasons = {order.needed_for(self._layout, key): why for key, why in refused.items()}
        held: Refused = {}
        for key in frontends.keys:
            for need in self._needs(put[key]):
                if need in reasons:
                    held[key] = reasons[need]
        return held

    def _still_needed(self, keys: Collection[Key], refused: Refused) -> frozenset[Key]:
        """Return which entries the frontends need that could not be rewritten."""
        frontends = (key for key in refused if _map_of(key) is TableMap.FRONTENDS)
        needs = {
            need
            for key in frontends
            for need in self._needs(self._maps[TableMap.FRONTENDS].lookup(raw_key(key)[1:]))
        }
        if not needs:
            return frozenset()
        return frozenset(key for key in keys if order.needed_for(self._layout, key) in needs)

    def _needs(self, frontend: bytes | None) -> tuple[bytes, ...]:
        """Return the digests by which a frontend finds what it needs."""
        if frontend is None:
            return ()
        service, targets, *_ = self._layout.frontend.unpack(frontend)
        return service, targets

    def _remove(self, keys: Collection[Key]) -> None:
        for step in order.of_removing(self._layout, keys):
            raw = [key[1:] for key in step.keys]
            if step.of is TableMap.TABLE_RULES:  # an array, whose entries are for ever
                self._maps[step.of].update_many(dict.fromkeys(raw, bytes(self._layout.rules.size)))
            else:
                self._maps[step.of].delete_many(raw)

    def _give_up(self, refused: Refused) -> None:
        """Have what was refused left out by the next rendering. Raises BackendError.

        But not service ports that are served already: those are to stay as they are, which is for
        whoever knows how that was.
        """
        served = self.owners(key for key, _ in self._entries(TableMap.FRONTENDS))
        new = {key: why for key, why in refused.items() if served.isdisjoint(self.owners([key]))}
        if self._renderer.refuse(new):
            self._lacking.update(map(_map_of, new))
        key, why = next(iter(refused.items()))
        detail = f"{len(refused)} entries refused, among them {self.describe(key)}: {why}"
        raise BackendError("filling the maps", detail, transient=True)

    def _has_room(self, of: TableMap, count: int) -> bool:
        """Find out whether a map takes so many entries more, by some that nobody looks up."""
        table = self._maps[of]
        if self._count[of] + count > table.shape.max_entries:
            return False
        scratch = [order.scratch(self._layout, of, number) for number in range(count)]
        try:
            table.update_many(dict.fromkeys(scratch, bytes(table.shape.value_size)))
        except BatchRefusal as refusal:
            if refusal.number not in _FULL:
                raise
            return False
        finally:
            table.delete_many(scratch)
        return True


def _map_of(key: Key) -> TableMap:
    return TableMap(raw_key(key)[0])
