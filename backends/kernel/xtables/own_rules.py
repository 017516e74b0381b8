"""A data path's own rules: observed, written and watched."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from backends.kernel import nft
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import drift, jumps, reading, tools
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.restore import RestoreInput, TableEdit
from backends.kernel.xtables.saved import Seen
from backends.kernel.xtables.texts import Texts
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, Image, Key

_MOVES = 3  # of a jump that others overtake; after that its place is theirs to mind


class RuleSource(Protocol):
    """Knows the rules that are wanted."""

    def chain(self, key: Key) -> Iterable[str]:
        """Return the rules of one of our chains, signed."""

    def jump(self, key: Key) -> str:
        """Return our rule for a built-in chain, signed."""


class OwnRules:
    """The chains and jumps of one data path and family, in one variant.

    `transactions` are shared with the other family's, which the kernel counts together.
    """

    def __init__(
        self,
        *,
        family: Family,
        variant: Variant,
        ours: Ours,
        source: RuleSource,
        transactions: Transactions,
    ) -> None:
        self._family = family
        self._variant = variant
        self._ours = ours
        self._source = source
        self._watch = drift.watch(
            family=family, variant=variant, ours=ours, transactions=transactions
        )
        self._chains: set[Key] = set()
        self._texts = Texts()

    @property
    def chains(self) -> Collection[Key]:
        """The chains that exist, as they were observed and written last."""
        return self._chains

    def observe(self) -> Image:
        """Read back our chains and jumps. Raises BackendError."""
        self._watch.reading()
        seen = Seen()
        for table in self._ours.tables:
            seen.join(self._read(table))
        self._chains = {key for key in seen.image if split_key(key)[0] in self._ours.tables}
        return seen.image

    @contextlib.contextmanager
    def writing(self, changes: Changes) -> Iterator[None]:
        """Surround all that a commit writes; if it fails, nothing is trusted until `observe`."""
        self._watch.writing()
        self._texts.forget([*changes.put, *changes.drop])
        yield
        self._watch.written()

    def write(self, edit: TableEdit) -> None:
        """Write one table's changes, within `writing`. Raises BackendError."""
        if not edit:
            return
        self._write(edit)
        if edit.table == "filter":
            self._put_behind_engines(edit)

    def disturbed(self) -> bool:
        """Say whether others may have changed something since it was observed or written."""
        return self._watch.disturbed()

    def _read(self, table: str) -> Seen:
        how = reading.reader(self._family, self._variant, table)
        if how is None:
            return Seen()
        seen = reading.read(how, family=self._family, table=table, ours=self._ours)
        self._texts.compare(table, how, seen)
        return seen

    def _put_behind_engines(self, edit: TableEdit) -> None:
        """Move those new jumps that came to stand before an engine's, made at the same moment."""
        for _ in range(_MOVES if edit.insert_jumps else 0):
            keys = jumps.overtaken(
                edit, family=self._family, variant=self._variant, ours=self._ours
            )
            if not keys:
                return
            self._write(TableEdit(edit.table, insert_jumps=keys, delete_jumps=keys))

    def _write(self, edit: TableEdit) -> None:
        plan = jumps.plan(edit, family=self._family, variant=self._variant, ours=self._ours)
        source = self._source
        text = RestoreInput(edit, source.chain, source.jump, plan.old, plan.numbers)
        self._remove_jumps(plan.before)
        with self._watch.transaction():
            tools.restore(self._family, self._variant, text)
        self._remove_jumps(plan.after)
        self._chains.update(edit.write)
        self._chains.difference_update(edit.remove)

    def _remove_jumps(self, edit: nft.Edit) -> None:
        if edit:
            with self._watch.transaction():
                edit.commit()
