"""The iptables data path: observing and committing images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends import _conntrack
from backends.iptables import drift, ipsets, localnet, node, reading, restore, tools
from backends.iptables.localnet import GUARD as LOCALNET_GUARD
from backends.iptables.reading import Reader
from backends.iptables.render import Renderer
from backends.iptables.restore import TableEdit
from backends.iptables.rules import TABLES, split_key
from backends.iptables.saved import Seen
from backends.iptables.texts import Texts
from backends.iptables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import TableChanges


class IptablesBackend:
    """One family's data path, in one of the two variants."""

    def __init__(self, *, family: Family, variant: Variant, renderer: Renderer) -> None:
        self.family = family
        self.variant = variant
        self._renderer = renderer
        self._watch = drift.watch(family, variant)
        self._filter_chains: set[Key] = set()
        self._jumps: dict[Key, tuple[str, ...]] = {}
        self._texts = Texts()

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter."""
        return self._renderer.update(changes)

    def observe(self) -> Image:
        """Read back our chains, jumps and ipsets."""
        self._watch.reading()
        seen = Seen()
        for table in TABLES:
            seen.join(self._read(table))
        self._jumps = seen.jumps
        self._filter_chains = {key for key in seen.image if split_key(key)[0] == "filter"}
        return {**seen.image, **ipsets.observe(self.family)}

    def commit(self, changes: Changes) -> None:
        """Write the changes: what others refer to first, what nothing refers to any more last.

        A packet meets the old answer or the new one at every step. A refusal leaves the steps
        before it done, which the next observation shows.
        """
        self._watch.writing()
        self._texts.forget([*changes.put, *changes.drop])
        sets = [key for key in changes.put if split_key(key)[0] == "set"]
        ipsets.ensure(map(self._renderer.affinity_set, sets))
        node.forward(self.family)
        transactions = self._commit_tables(changes)
        gone = [split_key(key)[1] for key in changes.drop if split_key(key)[0] == "set"]
        ipsets.destroy(gone)
        self._watch.written(transactions)

    def disturbed(self) -> bool:
        """Say whether others may have changed our tables; a missing ipset is not noticed."""
        return self._watch.disturbed()

    def flows(self, wanted: Destinations) -> Iterable[Flow]:
        """Return the UDP flows to `wanted` that the kernel tracks."""
        return _conntrack.list_udp(self.family, wanted)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows from connection tracking; return how many still existed."""
        return _conntrack.delete(self.family, flows)

    def _read(self, table: str) -> Seen:
        how = reading.reader(self.family, self.variant, table)
        if how is None:
            return Seen()
        seen = reading.read(how, self.family, self.variant, table)
        self._texts.compare(table, how, seen)
        return seen

    def _commit_tables(self, changes: Changes) -> int:
        """Write both tables; return in how many transactions.

        filter decides over what nat did not translate. So it first gets the new verdicts beside
        the old ones, then nat changes, then the old verdicts go.
        """
        nat = restore.whole_edit("nat", changes)
        before = restore.whole_edit("filter", changes)
        after = TableEdit("filter")
        if nat and before:
            before, after = restore.split_edit(before, self._filter_chains)
        if LOCALNET_GUARD in changes.drop:
            localnet.close(self.family, self.variant)
        transactions = self._restore(before)
        if self._renderer.localhost:
            node.route_localnet("1")
        return transactions + self._restore(nat) + self._restore(after)

    def _restore(self, edit: TableEdit) -> int:
        if not edit:
            return 0
        if any(key in self._jumps and not self._jumps[key] for key in edit.delete_jumps):
            self._jumps |= reading.read(Reader.SAVE, self.family, self.variant, edit.table).jumps
        renderer = self._renderer
        text = restore.text(edit, chain=renderer.chain, jump=renderer.jump, old_jumps=self._jumps)
        tools.restore(self.family, self.variant, text)
        for key in edit.delete_jumps:
            self._jumps.pop(key, None)
        self._jumps |= {key: (renderer.jump(key),) for key in edit.insert_jumps}
        if edit.table == "filter":
            self._filter_chains.update(edit.write)
            self._filter_chains.difference_update(edit.remove)
        return 1
