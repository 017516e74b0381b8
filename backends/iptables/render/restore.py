"""Changes of an image to the text that iptables-restore reads. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from backends.iptables.render.rules import CLUSTER_IP_CHAINS
from backends.kernel.xtables.wording import chain_key, rules_of, split_key
from kproxy.core.image import Changes, Key

# iptables-nft-restore takes 1.5 kB for each. With 20,000 at once, as with 130,000, a first write
# took 7.5 s of CPU all in all, and with so many 6.3 s.
_RULES_OF_A_STEP = 5000


# What service ports' chains may lead to besides each other.
_MARK = chain_key("nat", "KPROXY-MARK")


@dataclass(slots=True)
class TableEdit:
    """One atomic change of one table; chains and jumps by key.

    `write` chains end with exactly their wanted rules, `append` chains keep their old rules
    before the wanted ones, `remove` chains are gone, whether they existed or not.
    """

    table: str
    write: list[Key] = field(default_factory=list)
    append: list[Key] = field(default_factory=list)
    remove: list[Key] = field(default_factory=list)
    insert_jumps: list[Key] = field(default_factory=list)
    delete_jumps: list[Key] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.write or self.append or self.remove or self.insert_jumps or self.delete_jumps
        )


def whole_edit(table: str, changes: Changes) -> TableEdit:
    """Return the change of one table, in one step."""
    edit = TableEdit(table)
    for key in changes.put:
        match split_key(key):
            case ("jump", where, _, _) if where == table:
                edit.insert_jumps.append(key)
                edit.delete_jumps.append(key)
            case (where, _) if where == table:
                edit.write.append(key)
    for key in changes.drop:
        match split_key(key):
            case ("jump", where, _, _) if where == table:
                edit.delete_jumps.append(key)
            case (where, _) if where == table:
                edit.remove.append(key)
    return edit


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


@dataclass(frozen=True, slots=True)
class RestoreInput:
    """The lines of input of one iptables-restore --noflush, made anew for each iteration.

    For 10,000 Services they have 16 MB. `chain` and `jump` give the wanted rules, `old_jumps`
    what of our jumps has to go, and `numbers` the place of each new one, as it is when the ones
    before it were inserted.
    """

    edit: TableEdit
    chain: Callable[[Key], Iterable[str]]
    jump: Callable[[Key], str]
    old_jumps: Mapping[Key, Iterable[str]]
    numbers: Mapping[Key, int]

    def __iter__(self) -> Iterator[str]:
        edit = self.edit
        yield f"*{edit.table}"
        # A declaration makes a chain or flushes it. Sorted backwards: nf_tables' restore looks for
        # the place of each in a sorted list from its beginning. For 10,000 chains random order
        # took 2.6 times as long, and forward order 1.1 times.
        for key in sorted([*edit.write, *edit.remove], reverse=True):
            yield f":{split_key(key)[-1]} - [0:0]"
        for key in edit.delete_jumps:
            for spec in self.old_jumps.get(key, ()):
                yield f"-D {split_key(key)[2]} {spec}"
        for key in sorted([*edit.write, *edit.append]):
            name = split_key(key)[-1]
            for rule in self.chain(key):
                yield f"-A {name} {rule}"
        for key in edit.insert_jumps:
            yield f"-I {split_key(key)[2]} {self.numbers[key]} {self.jump(key)}"
        for key in sorted(edit.remove):
            yield f"-X {split_key(key)[-1]}"
        yield "COMMIT"
