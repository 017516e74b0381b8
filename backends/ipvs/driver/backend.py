"""The ipvs data path of one family: observing and committing images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from backends.ipvs.driver import policies
from backends.ipvs.driver.counters import Counters
from backends.ipvs.driver.link import ServiceLink
from backends.ipvs.driver.ours import DIVERTING, OURS
from backends.ipvs.driver.servers import Servers
from backends.ipvs.driver.sets import Sets
from backends.ipvs.driver.settings import NodeSettings
from backends.ipvs.render import entries
from backends.ipvs.render.renderer import Renderer
from backends.ipvs.render.sets import SetKind
from backends.kernel import conntrack
from backends.kernel.xtables import wording
from backends.kernel.xtables.own_rules import OwnRules
from backends.kernel.xtables.restore import TableEdit, whole_edit
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import Sample

log = logging.getLogger(__name__)

_DRAIN_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a family's data path is put together from."""

    renderer: Renderer
    settings: NodeSettings
    sets: Sets
    link: ServiceLink
    servers: Servers
    rules: OwnRules
    counters: Counters


class IpvsBackend:
    """One family's data path."""

    def __init__(
        self, family: Family, parts: Parts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.family = family
        self._parts = parts
        self._clock = clock
        self._next_drain_s = clock()
        self._unenforced = ""

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter."""
        parts = self._parts
        around = replace(parts.link.surroundings(), taken=parts.servers.taken())
        patch = parts.renderer.update(changes, around)
        return patch | parts.settings.render()

    def observe(self) -> Image:
        """Read back all that is ours: the sets first, as they tell which virtual servers are."""
        self._warn_of_policies()
        parts = self._parts
        image: dict[Key, bytes] = {**parts.sets.observe()}
        for part in (parts.servers, parts.link, parts.rules, parts.settings):
            image.update(part.observe())
        return image

    def commit(self, changes: Changes) -> None:
        """Write the changes: what others refer to first, what nothing refers to any more last.

        Rules know every frontend before a packet to it comes to ipvs, and whoever else translates
        goes on until then. So at every step a packet meets the old answer or the new one.
        """
        parts, rules = self._parts, _of_rules(changes)
        edits = [whole_edit(table, rules) for table in OURS.tables]
        diversions = [_taken_out(edit) for edit in edits]
        with parts.rules.writing(rules):
            unclaimed = parts.servers.unclaimed(changes)
            parts.settings.put(changes.put)
            parts.sets.put(changes)
            for edit in edits:
                parts.rules.write(edit)
            parts.servers.put(changes, unclaimed)
            parts.link.put(changes)
            for edit in diversions:
                parts.rules.write(edit)
            parts.servers.drop(changes)
            parts.link.drop(changes, but=self._needed_addresses())
            self._keep_leaving()
            parts.sets.drop(changes)

    def settle(self) -> None:
        """Try again to set what the node refused, and look which places others have left."""
        self._parts.servers.look_again()
        self._parts.settings.settle()

    def take_over(self) -> None:
        """Let go of what kube-proxy left and no Service has, now that our rules are in force."""
        self._parts.servers.take_over()
        self._keep_leaving()

    def disturbed(self) -> bool:
        """Say whether others may have changed our objects, or what decides about them."""
        parts = self._parts
        watched = (parts.settings, parts.link, parts.rules, parts.sets, parts.servers)
        return any(each.disturbed() for each in watched)

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports of which something is left out, and what and why."""
        return self._parts.renderer.unheld()

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these objects are made for."""
        return self._parts.renderer.owners(keys)

    def describe(self, key: Key) -> str:
        """Return what an object is, for logs."""
        return entries.describe(key) if isinstance(key, bytes) else wording.describe(key)

    def flows(self, wanted: Destinations) -> Iterable[Flow]:
        """Return the UDP flows to `wanted` that the kernel tracks."""
        return conntrack.list_udp(self.family, wanted)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows from connection tracking; return how many still existed."""
        return conntrack.delete(self.family, flows)

    def counters(self) -> Iterator[Sample]:
        """Return what the driver keeps in the kernel."""
        return self._parts.counters.samples()

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when the node's addresses or our link change."""
        return self._parts.link.fileno()

    def tend(self, budget_s: float) -> bool:
        """Take in what changed around, and let go of what has drained."""
        parts = self._parts
        if self._clock() >= self._next_drain_s:
            self._next_drain_s = self._clock() + _DRAIN_EVERY_S
            parts.servers.tend(budget_s)
            parts.link.release(but=self._needed_addresses())
            self._keep_leaving()
        return parts.link.tend()

    def close(self) -> None:
        """Let go of the sockets: the kernel goes on without this process."""
        self._parts.link.close()

    def _warn_of_policies(self) -> None:
        """Say it if an engine has come since the start that would have kept us from it."""
        found = policies.unenforced(self.family)
        if found and found != self._unenforced:
            log.error("%s: %s; %s", self.family.value, found, policies.REMEDY)
        self._unenforced = found

    def _needed_addresses(self) -> frozenset[bytes]:
        """Return where connections are open, though there is no frontend any more."""
        return frozenset(map(entries.address_of, self._parts.servers.leaving()))

    def _keep_leaving(self) -> None:
        """Let the sets tell what is there for open connections alone."""
        parts = self._parts
        parts.sets.keep(SetKind.LEAVING, parts.servers.leaving())
        parts.sets.keep(SetKind.LEAVING_ADDRESSES, parts.link.leaving())


def _of_rules(changes: Changes) -> Changes:
    """Return the part of changes whose keys have names."""
    return Changes(
        {key: value for key, value in changes.put.items() if isinstance(key, str)},
        frozenset(key for key in changes.drop if isinstance(key, str)),
    )


def _taken_out(edit: TableEdit) -> TableEdit:
    """Take the jumps out of an edit that keep others from translating; return an edit of those."""
    keys = [key for key in edit.insert_jumps if split_key(key)[-1] in DIVERTING]
    edit.insert_jumps = [key for key in edit.insert_jumps if key not in keys]
    edit.delete_jumps = [key for key in edit.delete_jumps if key not in keys]
    return TableEdit(edit.table, insert_jumps=keys, delete_jumps=keys)
