"""Our jumps in built-in chains: where new ones go, and how old ones leave."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backends.kernel import nft
from backends.kernel.xtables import placement, rulesets
from backends.kernel.xtables.ours import ANY_OF_OURS, Ours
from backends.kernel.xtables.restore import TableEdit
from backends.kernel.xtables.rulesets import BaseRule, Table
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.image import Key


@dataclass(frozen=True, slots=True)
class Plan:
    """What an edit does with jumps.

    - `numbers`: the place of each new one, as it is when the ones before it were inserted.
    - `old`: the texts of those that the restore deletes.
    - `before`, `after`: those that go in transactions of their own, around the restore.
    """

    numbers: Mapping[Key, int]
    old: Mapping[Key, Sequence[str]]
    before: nft.Edit
    after: nft.Edit


def plan(edit: TableEdit, *, family: Family, variant: Variant, ours: Ours) -> Plan:
    """Look at the built-in chains of an edit and say how its jumps come and go.

    A new jump goes where kube-proxy's stands, else behind the jumps of policy engines, or where
    our own stood behind them. Raises BackendError.
    """
    doing = f"removing jumps from the nf_tables table {edit.table}"
    before, after = nft.Edit(family, doing), nft.Edit(family, doing)
    if not (edit.insert_jumps or edit.delete_jumps):
        return Plan({}, {}, before, after)
    with rulesets.opened(family, variant, (edit.table,)) as tables:
        table = tables.get(edit.table)
        old = {key: _copies(table, key) for key in edit.delete_jumps}
        if variant is Variant.LEGACY:
            texts = {key: [str(rule.identity) for rule in rules] for key, rules in old.items()}
            new = _numbers(table, ours, edit.insert_jumps, ending=old.values())
            return Plan(new, texts, before, after)
        # No restore can delete a rule beside such that iptables does not understand. A jump is
        # replaced after the new one is there, and goes before the chain to which it leads.
        ending = [rules for key, rules in old.items() if key not in edit.insert_jumps]
        for rules in old.values():
            for rule in rules:
                rulesets.delete(before if rules in ending else after, edit.table, rule)
        new = _numbers(table, ours, edit.insert_jumps, ending=ending)
        return Plan(new, {}, before, after)


def overtaken(edit: TableEdit, *, family: Family, variant: Variant, ours: Ours) -> list[Key]:
    """Return which new jumps of an edit do not stand where they would be put now.

    That is what becomes of them if a policy engine makes its jump between our look and our write.
    Raises BackendError.
    """
    with rulesets.opened(family, variant, (edit.table,)) as tables:
        table = tables.get(edit.table)
        if table is None:
            return []  # somebody deleted it at this moment, which the next look finds
        found = []
        for key in edit.insert_jumps:
            _, _, base, chain = split_key(key)
            rules = table.built_in.get(base, ())
            targets = [rule.step.chain for rule in rules]
            if chain in targets and targets.index(chain) < _place(table, ours, base, chain):
                found.append(key)
        return found


def _copies(table: Table | None, key: Key) -> list[BaseRule]:
    _, _, base, chain = split_key(key)
    rules = table.built_in.get(base, ()) if table is not None else ()
    return [rule for rule in rules if rule.step.chain == chain]


def _numbers(
    table: Table | None,
    ours: Ours,
    keys: Collection[Key],
    *,
    ending: Iterable[Collection[BaseRule]],
) -> dict[Key, int]:
    """Return the rule numbers for new jumps, inserted one after the other when `ending` is gone."""
    gone = list(itertools.chain.from_iterable(ending))
    numbers: dict[Key, int] = {}
    inserted: dict[str, list[int]] = {}
    for key in keys:
        _, _, base, chain = split_key(key)
        rules = table.built_in.get(base, ()) if table is not None else ()
        place = _place(table, ours, base, chain) if table is not None else 0
        staying = sum(rule not in gone for rule in rules[:place])
        earlier = inserted.setdefault(base, [])
        numbers[key] = 1 + staying + sum(other < place for other in earlier)
        earlier.append(place)
    return numbers


def _place(table: Table, ours: Ours, base: str, chain: str) -> int:
    """Return before which of a built-in chain's rules a jump of ours goes."""
    rules = table.built_in.get(base, ())
    targets = [rule.step.chain for rule in rules]
    predecessors = ours.in_the_place_of.get(chain) or tuple(filter(ours.kube_proxys, targets))
    for place, target in enumerate(targets):
        if target in predecessors:
            return place

    def counts_for_nothing(target: str) -> bool:
        return target.startswith(ANY_OF_OURS) or ours.kube_proxys(target)

    place = placement.leading([rule.step for rule in rules], table.steps, counts_for_nothing)
    return max(place, targets.index(chain)) if targets.count(chain) == 1 else place
