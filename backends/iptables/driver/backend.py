"""The iptables data path: observing and committing images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.iptables.driver import accounting, drift, jumps, localnet, reading
from backends.iptables.driver.counters import RuleCounts, packet_samples
from backends.iptables.driver.saved import Seen
from backends.iptables.driver.sets import AffinitySets
from backends.iptables.driver.texts import Texts
from backends.iptables.render import restore
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.restore import RestoreInput, TableEdit
from backends.iptables.render.rules import TABLES
from backends.kernel import conntrack, nft
from backends.kernel.sysctls import Liberality, Sysctls
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import tools
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import describe, split_key, sysctl_key
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import BackendError, Sample

_MOVES = 3  # of a jump that others overtake; after that its place is theirs to mind


class IptablesBackend:
    """One family's data path, in one of the two variants.

    `transactions` are shared with the other family's, which the kernel counts together.
    """

    def __init__(
        self, *, family: Family, variant: Variant, renderer: Renderer, transactions: Transactions
    ) -> None:
        self.family = family
        self.variant = variant
        self._renderer = renderer
        self._watch = drift.watch(family, variant, transactions)
        self._chains: set[Key] = set()
        self._texts = Texts()
        self._sysctls = Sysctls(family, sysctl_key)
        self._sets = AffinitySets(family, renderer.affinity_set)
        self._liberality = Liberality(family)
        self._counts = RuleCounts(variant)

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter."""
        patch = self._renderer.update(changes, drop_invalid=not self._liberality.rendered())
        self._counts.rendered(patch)
        self._sets.rendered(patch)
        return patch | self._sysctls.render(localhost=self._renderer.localhost)

    def observe(self) -> Image:
        """Read back our chains, jumps and ipsets, and the settings that they need."""
        self._watch.reading()
        seen = Seen()
        for table in TABLES:
            seen.join(self._read(table))
        self._chains = {key for key in seen.image if split_key(key)[0] in TABLES}
        sysctls = self._sysctls.observe(guarded=localnet.GUARD in self._chains)
        return {**seen.image, **self._sets.observe(), **sysctls}

    def commit(self, changes: Changes) -> None:
        """Write the changes: what others refer to first, what nothing refers to any more last.

        A packet meets the old answer or the new one at every step. A refusal leaves the steps
        before it done, which the next observation shows.
        """
        self._watch.writing()
        self._texts.forget([*changes.put, *changes.drop])
        self._make_sets(changes.put)
        if self._renderer.counts and not accounting.FEEDING.isdisjoint(changes.put):
            accounting.ensure(self.family)
        if self._sysctls.forwarding in changes.put:
            self._sysctls.forward()
        self._commit_tables(changes)
        self._sets.dropped(changes.drop)
        self._watch.written()
        self._counts.written(changes.put)

    def settle(self) -> None:
        """Try again to set and make what the node refused."""
        self._make_refused_sets()
        self._sysctls.settle()

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return what of the table this host cannot have: affinity, or a protocol, and why."""
        return self._renderer.unheld()

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these chains and ipsets are made for."""
        return self._renderer.owners(keys)

    def disturbed(self) -> bool:
        """Say whether others may have changed our objects, or a setting that decides about them.

        A missing ipset is not noticed.
        """
        return self._liberality.disturbed() or self._sysctls.disturbed() or self._watch.disturbed()

    def flows(self, wanted: Destinations) -> Iterable[Flow]:
        """Return the UDP flows to `wanted` that the kernel tracks."""
        return conntrack.list_udp(self.family, wanted)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Remove flows from connection tracking; return how many still existed."""
        return conntrack.delete(self.family, flows)

    def counters(self) -> Iterable[Sample]:
        """Return how many rules there are, how many were written last, and what they counted."""
        yield from self._counts.samples()
        if self._renderer.counts:
            yield from packet_samples(self.family)

    def describe(self, key: Key) -> str:
        """Return what an object is, for logs."""
        return describe(key)

    def fileno(self) -> int | None:
        """Return None: the kernel's rules follow addresses and devices by themselves."""
        return None

    def tend(self, budget_s: float) -> bool:
        """Remove ipsets that no rule names any more."""
        return self._sets.tend(budget_s)

    def close(self) -> None:
        """Do nothing: no descriptor is held between calls."""

    def _make_sets(self, keys: Iterable[Key]) -> None:
        """Make ipsets exist. Raises BackendError; their owners are rendered without, then."""
        refused = self._sets.ensure(keys)
        if refused:
            self._renderer.cannot_remember(refused)
            name, reason = next(iter(refused.items()))
            detail = f"{len(refused)} refused, among them {name}: {reason}"
            raise BackendError("creating ipsets", detail, transient=True)

    def _make_refused_sets(self) -> None:
        """Try to make the ipsets that were refused, up to the first that are refused again."""
        while (key := self._renderer.first_without_ipsets()) is not None:
            if not self._sets.provide(self._renderer.affinity_sets(key)):
                return
            self._renderer.can_remember(key)

    def _read(self, table: str) -> Seen:
        how = reading.reader(self.family, self.variant, table)
        if how is None:
            return Seen()
        seen = reading.read(how, self.family, table)
        self._texts.compare(table, how, seen)
        return seen

    def _commit_tables(self, changes: Changes) -> None:
        """Write both tables.

        filter decides over what nat did not translate. So it first gets the new verdicts beside
        the old ones, then nat changes, then the old verdicts go.
        """
        nat = restore.whole_edit("nat", changes)
        before = restore.whole_edit("filter", changes)
        after = TableEdit("filter")
        if nat and before:
            before, after = restore.split_edit(before, self._chains)
        if self._sysctls.localnet in changes.drop:
            localnet.close(self.family, self.variant)
            self._sysctls.localnet_closed()
        self._restore(before)
        if self._sysctls.localnet in changes.put:
            self._sysctls.open_localnet()
        for step in self._steps(nat, changes):
            self._restore(step)
        self._restore(after)

    def _steps(self, edit: TableEdit, changes: Changes) -> Iterable[TableEdit]:
        """Return the steps of a change: one in legacy, where each reads and writes all rules."""
        if self.variant is Variant.LEGACY:
            return [edit]
        return restore.split_fill(edit, changes.put, self._chains, self._renderer.owner)

    def _restore(self, edit: TableEdit) -> None:
        """Write one table's changes."""
        if not edit:
            return
        self._write(edit)
        if edit.table == "filter":
            self._put_behind_engines(edit)

    def _put_behind_engines(self, edit: TableEdit) -> None:
        """Move those new jumps that came to stand before an engine's, made at the same moment."""
        for _ in range(_MOVES if edit.insert_jumps else 0):
            keys = jumps.overtaken(self.family, self.variant, edit)
            if not keys:
                return
            self._write(TableEdit(edit.table, insert_jumps=keys, delete_jumps=keys))

    def _write(self, edit: TableEdit) -> None:
        renderer = self._renderer
        plan = jumps.plan(self.family, self.variant, edit)
        text = RestoreInput(edit, renderer.chain, renderer.jump, plan.old, plan.numbers)
        self._remove_jumps(plan.before)
        with self._watch.transaction():
            tools.restore(self.family, self.variant, text)
        self._remove_jumps(plan.after)
        self._chains.update(edit.write)
        self._chains.difference_update(edit.remove)

    def _remove_jumps(self, edit: nft.Edit) -> None:
        if edit:
            with self._watch.transaction():
                edit.commit()
