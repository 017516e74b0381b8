"""Changes of a table cut into steps, after each of which packets are treated right. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from backends.iptables.render.rules import CLUSTER_IP_CHAINS
from backends.kernel.xtables.restore import TableEdit
from backends.kernel.xtables.wording import chain_key, rules_of, split_key
from kproxy.core.image import Key

# iptables-nft-restore takes 1.5 kB for each. With 20,000 at once, as with 130,000, a first write
# took 7.5 s of CPU all in all, and with so many 6.3 s.
_RULES_OF_A_STEP = 5000

# What service ports' chains may lead to besides each other.
_MARK = chain_key("nat", "KPROXY-MARK")


def split_edit(edit: TableEdit, existing: Collection[Key]) -> tuple[TableEdit, TableEdit]:
    """Return the same change in two steps: one that only adds, then the exact result.

    Between the two, a packet meets every old rule and every new one. What refuses the rest of a
    clusterIP waits for the second step: a Service that is only being made is not refused.
    """
    late: list[Key] = []
    if chain_key(edit.table, CLUSTER_IP_CHAINS[0]) in existing:
        late = [key for key in edit.write if split_key(key)[-1].startswith(CLUSTER_IP_CHAINS)]
    waiting = set(late)
    early = [key for key in edit.write if key not in waiting]
    additions = TableEdit(
        edit.table,
        write=[key for key in early if key not in existing],
        append=[key for key in early if key in existing],
        insert_jumps=edit.insert_jumps,
        delete_jumps=[key for key in edit.delete_jumps if key in edit.insert_jumps],
    )
    exact = TableEdit(
        edit.table,
        write=[*additions.append, *late],
        remove=edit.remove,
        delete_jumps=[key for key in edit.delete_jumps if key not in edit.insert_jumps],
    )
    return additions, exact


def split_fill(
    edit: TableEdit,
    put: Mapping[Key, bytes],
    existing: Collection[Key],
    owner: Callable[[Key], object | None],
) -> Iterator[TableEdit]:
    """Yield the same change in steps of some thousand rules, of which only the last one shows.

    A tool needs memory for all rules of one step. First come chains that do not exist yet and have
    an owner: they refer to no others of the table but that owner's and the one that marks, and
    nothing refers to them before the last step. `put` has the fingerprints of what is written.
    """
    new: dict[object, list[Key]] = {}
    for key in edit.write:
        whose = owner(key)
        if whose is not None and key not in existing:
            new.setdefault(whose, []).append(key)
    done: set[Key] = set()
    step, rules = TableEdit(edit.table, write=[key for key in edit.write if key == _MARK]), 0
    for keys in new.values():
        step.write += keys
        rules += sum(rules_of(put[key]) for key in keys)
        if rules >= _RULES_OF_A_STEP:
            yield step
            done.update(step.write)
            step, rules = TableEdit(edit.table), 0
    yield replace(edit, write=[key for key in edit.write if key not in done])
