"""Forwarding table to entries of the eBPF programs' maps, pure.

A frontend says what new connections of each origin get, and where in which list of targets. Lists
are named by their content and shared; a change of one endpoint makes another list, and the
frontends that lead to it. See ebpf/include/kproxy/service.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.ebpf.render import lists, networks, service_port
from backends.ebpf.render.describe import describe
from backends.ebpf.render.layout import TableMap, layout
from backends.ebpf.render.service_port import Drawn, draw
from backends.ebpf.render.usage import Asked, Usage, impossible, room_in, too_much
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.core.table import (
    LocalPods,
    NodeRules,
    ServicePort,
    ServicePortKey,
    TableChanges,
    Undetected,
    Vip,
)

Patch = dict[Key, bytes | None]


class Renderer:
    """One family's image, kept up to date change by change.

    Holds the service ports and the digests of their lists, never the entries themselves. `sizes`
    says how many entries each map can hold, by its name. What it lacks room for is left out by
    name, so that the image depends on the table, the sizes and the refusals alone.
    """

    def __init__(self, family: Family, sizes: Mapping[str, int]) -> None:
        self.layout = layout(family)
        self._room = room_in(sizes)
        self._rules: NodeRules | None = None
        self._cluster_ips: set[str] = set()
        self._fixed: dict[Key, bytes] = {}
        self._wildcard = service_port.refusing(self.layout)
        self._asked: dict[ServicePortKey, Asked] = {}
        self._held: set[ServicePortKey] = set()
        self._usage = Usage()
        self._owners: dict[bytes, list[ServicePortKey]] | None = None  # made when asked for
        self._impossible: dict[ServicePortKey, str] = {}
        self._refused: dict[ServicePortKey, str] = {}
        self._crowded_out: dict[ServicePortKey, str] = {}
        self._bare: dict[Key, str] = {}  # wildcards that were refused, with the reasons
        self._reconsider = False

    @property
    def local_pods(self) -> LocalPods:
        """How local pods are recognised; by which device, the entries do not tell."""
        return self._rules.local_pods if self._rules else Undetected("no table was rendered yet")

    def update(self, changes: TableChanges) -> Patch:
        """Take changes in; return the image entries that they may alter, None where gone."""
        patch: Patch = {}
        self._owners = None
        service_ports = self._take_rules(changes, patch)
        self._take_cluster_ips(changes.cluster_ips, patch)
        # All removals come first: a frontend may go from one service port to another.
        for key in service_ports:
            self._forget(key, patch)
        for key, new in service_ports.items():
            if new is not None:
                drawn = self._draw(new)
                self._ask(drawn)
                if key not in self._refused and key not in self._impossible:
                    self._put_in(drawn, patch)
            else:
                self._refused.pop(key, None)
        if self._reconsider or self._crowded_out or self._usage.excess(self._room):
            self._reconsider = False
            self._make_room(patch)
            self._take_back_wildcards(patch)
        return patch

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports that are left out, or of whose clusterIP something is."""
        return {
            **self._without_wildcard(),
            **self._crowded_out,
            **self._refused,
            **self._impossible,
        }

    def refuse(self, entries: Mapping[Key, str]) -> bool:
        """Leave out whom these entries are made for, from the next update on; say if that helps.

        `entries` are those that the kernel refused, with its reasons. A clusterIP's wildcard is
        left out alone: its service ports are served without.
        """
        wildcards = entries.keys() & self._wildcards().keys()
        refused = {
            owner: f"left out: {why}"
            for key, why in entries.items()
            for owner in self._owners_of(key)
        }
        self._bare.update({key: entries[key] for key in wildcards})
        self._refused.update(refused)
        self._reconsider = True
        return bool(wildcards or refused)

    def reopen(self) -> None:
        """Render again what was refused, from the next update on."""
        self._reconsider = self._reconsider or bool(self._refused or self._bare)
        self._refused.clear()
        self._bare.clear()

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these entries are made for; those of the node have none."""
        return frozenset(owner for key in keys for owner in self._owners_of(key))

    def describe(self, key: Key) -> str:
        """Return what an entry is."""
        return describe(self.layout, _raw(key))

    def _take_rules(
        self, changes: TableChanges, patch: Patch
    ) -> Mapping[ServicePortKey, ServicePort | None]:
        """Take node rules in; return the service ports that are to be rendered."""
        old, new = self._rules, changes.rules
        if new is None:
            return changes.service_ports
        self._rules = new
        fixed = dict(networks.entries(self.layout, new))
        patch.update(dict.fromkeys(self._fixed))
        patch.update(fixed)
        self._fixed = fixed
        if old is not None and not _matter_to_service_ports(old, new):
            return changes.service_ports
        everything = {key: asked.entry for key, asked in self._asked.items()}
        return {**everything, **changes.service_ports}

    def _take_cluster_ips(self, cluster_ips: Mapping[str, bool], patch: Patch) -> None:
        for address, known in cluster_ips.items():
            (self._cluster_ips.add if known else self._cluster_ips.discard)(address)
            key = self.layout.wildcard(address)
            patch[key] = self._wildcard if known and key not in self._bare else None
            if not known:
                self._bare.pop(key, None)
        self._usage.wildcards = len(self._cluster_ips)

    def _wildcards(self) -> dict[Key, str]:
        """Return the addresses of all clusterIPs by their wildcards."""
        return {self.layout.wildcard(address): address for address in self._cluster_ips}

    def _without_wildcard(self) -> dict[ServicePortKey, str]:
        """Return the service ports at clusterIPs whose wildcards were refused."""
        if not self._bare:
            return {}
        addresses = self._wildcards()
        bare = {addresses[key]: why for key, why in self._bare.items()}
        return {
            key: f"other ports of {frontend.address} are not refused: {bare[frontend.address]}"
            for key, asked in self._asked.items()
            for frontend in asked.entry.frontends
            if isinstance(frontend, Vip) and frontend.address in bare
        }

    def _draw(self, entry: ServicePort) -> Drawn:
        if self._rules is None:
            raise ValueError("the first changes of a table must bring its node rules")
        return draw(entry, self._rules, self.layout)

    def _ask(self, drawn: Drawn) -> None:
        arranged = drawn.arranged
        length = len(arranged.content) // self.layout.target.size
        asked = Asked(drawn.entry, arranged.digest, length)
        self._asked[drawn.entry.key] = asked
        if why := impossible(asked):
            self._impossible[drawn.entry.key] = why

    def _forget(self, key: ServicePortKey, patch: Patch) -> None:
        if key in self._held:
            self._take_out(key, patch)
        self._asked.pop(key, None)
        self._impossible.pop(key, None)

    def _put_in(self, drawn: Drawn, patch: Patch) -> None:
        entry, arranged = drawn.entry, drawn.arranged
        self._held.add(entry.key)
        first = self._usage.add(self._asked[entry.key])
        if first.chunks:
            patch.update(lists.chunks(self.layout, arranged))
        if first.members:
            patch.update(lists.members(self.layout, arranged))
        patch.update(service_port.frontends(drawn, self.layout))
        patch.update(
            dict.fromkeys(service_port.source_keys(entry, self.layout), service_port.ADMITTED)
        )

    def _take_out(self, key: ServicePortKey, patch: Patch) -> None:
        self._held.discard(key)
        asked = self._asked[key]
        entry = asked.entry
        last = self._usage.remove(asked)
        if last.chunks:
            patch.update(dict.fromkeys(lists.chunk_keys(self.layout, asked.digest, asked.length)))
        if last.members:
            arranged = self._draw(entry).arranged
            patch.update((member, None) for member, _ in lists.members(self.layout, arranged))
        patch.update(dict.fromkeys(service_port.own_keys(entry, self.layout)))

    def _make_room(self, patch: Patch) -> None:
        """Leave out what there is no room for or was refused, and put in all else."""
        hopeless = self._refused.keys() | self._impossible.keys()
        possible = [asked for key, asked in self._asked.items() if key not in hopeless]
        self._crowded_out = too_much(possible, self._room, wildcards=len(self._cluster_ips))
        out = self._crowded_out.keys() | hopeless
        for key in self._held & out:
            self._take_out(key, patch)
        for key in self._asked.keys() - self._held - out:
            self._put_in(self._draw(self._asked[key].entry), patch)

    def _take_back_wildcards(self, patch: Patch) -> None:
        """Leave out those that were refused, and put in all others."""
        for address in self._cluster_ips:
            key = self.layout.wildcard(address)
            patch[key] = None if key in self._bare else self._wildcard

    def _owners_of(self, key: Key) -> Iterable[ServicePortKey]:
        if self._owners is None:
            self._owners = self._all_owners()
        raw = _raw(key)
        is_of_list = TableMap(raw[0]) in (TableMap.CHUNKS, TableMap.MEMBERS)
        return self._owners.get(self.layout.list_of(raw) if is_of_list else raw, ())

    def _all_owners(self) -> dict[bytes, list[ServicePortKey]]:
        """Return who has which lists, by their digests, and the other entries, by their keys."""
        owners: dict[bytes, list[ServicePortKey]] = {}
        for key in self._held:
            asked = self._asked[key]
            owners.setdefault(asked.digest, []).append(key)
            for each in service_port.own_keys(asked.entry, self.layout):
                owners[each] = [key]
        return owners


def _matter_to_service_ports(old: NodeRules, new: NodeRules) -> bool:
    """Say whether a frontend's entry may differ under these rules; most changes spare them."""
    undetected = [isinstance(rules.local_pods, Undetected) for rules in (old, new)]
    return undetected[0] != undetected[1] or old.masquerade_all != new.masquerade_all


def _raw(key: Key) -> bytes:
    if isinstance(key, str):
        raise KeyError(key)
    return key
