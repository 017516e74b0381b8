"""The tables of one family and variant, for the few jobs that must look at the rules of others.

nf_tables is read over netlink: iptables-nft-save shows nothing of a table that holds a rule which
it cannot express, and with some rules fails.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.kernel import nft, nft_rules, raw_sockets
from backends.kernel.netlink import Netlink
from backends.kernel.xtables import legacy, steps, tools
from backends.kernel.xtables.steps import Action, RuleStep
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

NAMES = ("raw", "mangle", "nat", "filter", "security")
"""The tables of iptables; nf_tables may hold others, which are none of its business."""

_ONLY_NEW = "-m conntrack --ctstate NEW"


class BaseRule(NamedTuple):
    """A rule of a built-in chain.

    `conditional` says whether it asks for more than `only_new`: that the connection is new.
    `identity` is what deletes exactly this rule: its text, or what the kernel knows it by.
    """

    base: str
    step: RuleStep
    comment: str
    only_new: bool
    identity: str | nft.Rule

    @property
    def conditional(self) -> bool:
        """Whether packets have to fit something else than a new connection."""
        return bool(self.step.condition) and not self.only_new


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    - `built_in`: the rules of each chain that packets enter by themselves, in their order.
    - `chains`: the names of all other chains.
    - `steps` returns the rules of one of those, and nothing for an unknown chain.
    - `references` returns how many rules and elements of maps lead to one of those.
    """

    name: str
    built_in: Mapping[str, Sequence[BaseRule]]
    chains: frozenset[str]
    steps: Callable[[str], Sequence[RuleStep]]
    references: Callable[[str], int]

    def base_rules(self) -> Iterator[BaseRule]:
        """Yield the rules of all built-in chains."""
        for rules in self.built_in.values():
            yield from rules


@contextmanager
def opened(
    family: Family, variant: Variant, names: Collection[str] = NAMES
) -> Iterator[dict[str, Table]]:
    """Give those tables that exist, by name; they can be read within the block.

    A variant that the kernel lacks has none, and neither has legacy without its programs.
    Raises BackendError, also while reading.
    """
    if variant is Variant.LEGACY:
        yield _read_legacy(family, names)
        return
    if not nft.supported():
        yield {}
        return
    with Netlink("reading nf_tables") as netlink:
        yield _open_nf_tables(nft.RuleReader(family, netlink), nft.chains(family), names)


def chain_names(family: Family, variant: Variant, names: Collection[str] = NAMES) -> list[str]:
    """Return the names of all chains of these tables but the built-in ones. Raises BackendError.

    Together with `count_rules` it is for tables of any size: nothing is kept of their rules.
    """
    if variant is Variant.LEGACY:
        saved = itertools.chain.from_iterable(_saved(family, names).values())
        declared = (line.split() for line in saved if line.startswith(b":"))
        return [words[0][1:].decode(errors="replace") for words in declared if words[1] == b"-"]
    if not nft.supported():
        return []
    return [each.name for each in nft.chains(family) if each.table in names and not each.base]


def count_rules(family: Family, variant: Variant) -> int:
    """Return how many rules of iptables there are, whoever wrote them. Raises BackendError."""
    if variant is Variant.LEGACY:
        saved = itertools.chain.from_iterable(_saved(family, NAMES).values())
        return sum(line.startswith(b"-A ") for line in saved)
    if not nft.supported():
        return 0
    with Netlink("reading nf_tables") as netlink:
        reader = nft.RuleReader(family, netlink)
        # What has no counter was not written by iptables, and says nothing of who uses it.
        return sum(
            nft_rules.parse(rule).counted
            for chain in nft.chains(family)
            if chain.table in NAMES
            for rule in reader.rules(chain.table, chain.name)
        )


def in_both(remove_from: Callable[[Variant], int]) -> int:
    """Remove something from both variants; return how much.

    Raises the first BackendError, after both were tried: what one of them refuses, or may not be
    read without a capability, keeps nothing in the other.
    """
    removed = 0
    failure: BackendError | None = None
    for variant in Variant:
        try:
            removed += remove_from(variant)
        except BackendError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return removed


def held(table: Table, ours: Collection[str], removed: Iterable[BaseRule]) -> set[str]:
    """Return those chains to which something leads besides each other and the removed rules."""
    known: Counter[str] = Counter(rule.step.chain for rule in removed)
    for chain in ours:
        known.update(step.chain for step in table.steps(chain))
    return {chain for chain in ours if table.references(chain) > known[chain]}


def remove(
    family: Family,
    variant: Variant,
    table: str,
    *,
    rules: Collection[BaseRule],
    chains: Collection[str],
    emptied: Collection[str] = (),
) -> None:
    """Remove rules of built-in chains, and chains, at once; `emptied` ones lose their rules.

    Raises BackendError.
    """
    if variant is Variant.LEGACY:
        tools.restore(family, variant, _removal(table, rules, chains, emptied))
        return
    edit = nft.Edit(family, f"removing rules from the nf_tables table {table}")
    for rule in rules:
        delete(edit, table, rule)
    for chain in sorted([*chains, *emptied]):
        edit.flush(table, chain)
    for chain in sorted(chains):
        edit.delete_chain(table, chain)
    edit.commit()


def delete(edit: nft.Edit, table: str, rule: BaseRule) -> None:
    """Let an edit delete a rule that was read from nf_tables."""
    assert isinstance(rule.identity, nft.Rule), "legacy rules are deleted by a restore"
    edit.delete_rule(table, rule.base, rule.identity)


def _removal(
    table: str, rules: Iterable[BaseRule], chains: Iterable[str], emptied: Iterable[str]
) -> list[str]:
    gone = sorted(chains)
    return [
        f"*{table}",
        *(f":{chain} - [0:0]" for chain in sorted([*gone, *emptied])),
        *(f"-D {rule.base} {rule.identity}" for rule in rules),
        *(f"-X {chain}" for chain in gone),
        "COMMIT",
    ]


def _open_nf_tables(
    reader: nft.RuleReader, found: Iterable[nft.Chain], names: Collection[str]
) -> dict[str, Table]:
    by_table: dict[str, list[nft.Chain]] = {}
    for chain in found:
        if chain.table in names:
            by_table.setdefault(chain.table, []).append(chain)
    return {
        name: _NfTable(name, reader, {chain.name: chain for chain in chains}).table()
        for name, chains in by_table.items()
    }


class _Once:
    """Keeps equal steps once: kube-proxy has 100,000. Of a condition it keeps that there is one."""

    def __init__(self) -> None:
        self._known: dict[RuleStep, RuleStep] = {}

    def __call__(self, step: RuleStep) -> RuleStep:
        kept = step._replace(condition=step.condition and b"?")
        return self._known.setdefault(kept, kept)


class _NfTable:
    """Reads what is asked for of one table, each chain once."""

    def __init__(self, name: str, reader: nft.RuleReader, chains: dict[str, nft.Chain]) -> None:
        self._name = name
        self._reader = reader
        self._chains = chains
        self._steps: dict[str, tuple[RuleStep, ...]] = {}
        self._once = _Once()

    def table(self) -> Table:
        entered = [name for name, chain in self._chains.items() if chain.base]
        return Table(
            name=self._name,
            built_in={name: tuple(self._base_rules(name)) for name in entered},
            chains=frozenset(self._chains.keys() - set(entered)),
            steps=self.steps,
            references=self.references,
        )

    def steps(self, chain: str) -> Sequence[RuleStep]:
        if chain not in self._steps:
            parsed = map(nft_rules.parse, self._reader.rules(self._name, chain))
            self._steps[chain] = tuple(self._once(each.step) for each in parsed)
        return self._steps[chain]

    def references(self, chain: str) -> int:
        return self._chains[chain].uses - len(self.steps(chain))

    def _base_rules(self, base: str) -> Iterator[BaseRule]:
        for rule in self._reader.rules(self._name, base):
            parsed = nft_rules.parse(rule)
            yield BaseRule(base, parsed.step, parsed.comment, parsed.only_new, rule)


def _read_legacy(family: Family, names: Collection[str]) -> dict[str, Table]:
    saved = _saved(family, names)
    return {name: _LegacyTable.read(lines).table(name) for name, lines in saved.items()}


def _saved(family: Family, names: Collection[str]) -> dict[str, Iterator[bytes]]:
    """Return what iptables-legacy-save prints of those tables that exist, as it comes."""
    if not tools.installed(tools.program(family, Variant.LEGACY, "save")):
        return {}
    # Asking for a table that does not exist would create it.
    existing = sorted(legacy.tables(family) & set(names))
    if existing and not raw_sockets.permitted():
        doing = f"reading the legacy tables {', '.join(existing)}"
        raise BackendError(doing, "needs CAP_NET_RAW", transient=False)
    return {name: tools.save(family, Variant.LEGACY, name) for name in existing}


@dataclass(slots=True)
class _LegacyTable:
    """What iptables-legacy-save prints of one table."""

    built_in: dict[str, list[BaseRule]] = field(default_factory=dict)
    chains: dict[str, list[RuleStep]] = field(default_factory=dict)
    named: Counter[str] = field(default_factory=Counter)
    once: _Once = field(default_factory=_Once)

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> _LegacyTable:
        read = cls()
        for line in lines:
            read.take(line.decode(errors="replace").rstrip("\n"))
        return read

    def take(self, line: str) -> None:
        if line.startswith(":"):
            name, policy, *_ = line[1:].split()
            if policy == "-":
                self.chains[name] = []
            else:
                self.built_in[name] = []
        elif line.startswith("-A "):
            chain, _, spec = line[3:].partition(" ")
            self._take_rule(chain, spec)

    def table(self, name: str) -> Table:
        return Table(
            name=name,
            built_in=self.built_in,
            chains=frozenset(self.chains),
            steps=lambda chain: self.chains.get(chain, ()),
            references=lambda chain: self.named[chain],
        )

    def _take_rule(self, chain: str, spec: str) -> None:
        parsed = steps.parse(spec)
        step = parsed.step
        # All chains are declared before the first rule. What is none of them is a target that
        # lets packets go on, as LOG does.
        if step.chain and step.chain not in self.chains:
            step = step._replace(action=Action.PASS, chain="")
        if step.chain:
            self.named[step.chain] += 1
        if chain in self.built_in:
            only_new = parsed.condition == _ONLY_NEW
            self.built_in[chain].append(BaseRule(chain, step, parsed.comment, only_new, spec))
            return
        self.chains[chain].append(self.once(step))
