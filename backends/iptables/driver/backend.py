"""The iptables data path: observing and committing images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.iptables.driver import accounting, edits, localnet
from backends.iptables.driver.counters import RuleCounts, packet_samples
from backends.iptables.driver.ours import OURS
from backends.iptables.driver.sets import AffinitySets
from backends.iptables.render.renderer import Renderer
from backends.kernel import conntrack
from backends.kernel.sysctls import Liberality, Sysctls
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.own_rules import OwnRules
from backends.kernel.xtables.restore import TableEdit, whole_edit
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import describe, sysctl_key
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import BackendError, Sample


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
        self._rules = OwnRules(
            family=family,
            variant=variant,
            ours=OURS,
            source=renderer,
            transactions=transactions,
        )
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
        rules = self._rules.observe()
        sysctls = self._sysctls.observe(guarded=localnet.GUARD in rules)
        return {**rules, **self._sets.observe(), **sysctls}

    def commit(self, changes: Changes) -> None:
        """Write the changes: what others refer to first, what nothing refers to any more last.

        A packet meets the old answer or the new one at every step. A refusal leaves the steps
        before it done, which the next observation shows.
        """
        with self._rules.writing(changes):
            self._make_sets(changes.put)
            if self._renderer.counts and not accounting.FEEDING.isdisjoint(changes.put):
                accounting.ensure(self.family)
            if self._sysctls.forwarding in changes.put:
                self._sysctls.forward()
            self._commit_tables(changes)
            self._sets.dropped(changes.drop)
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
        return self._liberality.disturbed() or self._sysctls.disturbed() or self._rules.disturbed()

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

    def _commit_tables(self, changes: Changes) -> None:
        """Write both tables.

        filter decides over what nat did not translate. So it first gets the new verdicts beside
        the old ones, then nat changes, then the old verdicts go.
        """
        nat = whole_edit("nat", changes)
        before = whole_edit("filter", changes)
        after = TableEdit("filter")
        if nat and before:
            before, after = edits.split_edit(before, self._rules.chains)
        if self._sysctls.localnet in changes.drop:
            localnet.close(self.family, self.variant)
            self._sysctls.localnet_closed()
        self._rules.write(before)
        if self._sysctls.localnet in changes.put:
            self._sysctls.open_localnet()
        for step in self._steps(nat, changes):
            self._rules.write(step)
        self._rules.write(after)

    def _steps(self, edit: TableEdit, changes: Changes) -> Iterable[TableEdit]:
        """Return the steps of a change: one in legacy, where each reads and writes all rules."""
        if self.variant is Variant.LEGACY:
            return [edit]
        return edits.split_fill(edit, changes.put, self._rules.chains, self._renderer.owner)
