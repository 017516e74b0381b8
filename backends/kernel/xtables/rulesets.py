"""All rules of one family and variant, for the few jobs that must look at foreign ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from backends.kernel import nft
from backends.kernel.xtables import legacy, tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError


@dataclass(slots=True)
class Table:
    """The chains of one table and which chain jumps to which.

    `jumps` maps a chain to the user chains that its rules name as targets. `base_rules` are
    the rules of built-in chains with a user chain as target: (chain, spec as printed, target).
    `rules` counts all rules.
    """

    name: str
    built_in: set[str] = field(default_factory=set)
    chains: set[str] = field(default_factory=set)
    jumps: dict[str, set[str]] = field(default_factory=dict)
    base_rules: list[tuple[str, str, str]] = field(default_factory=list)
    rules: int = 0

    def take(self, line: str) -> None:
        """Take in one line of iptables-save."""
        if line.startswith(":"):
            name, policy, *_ = line[1:].split()
            (self.chains if policy == "-" else self.built_in).add(name)
        elif line.startswith("-A "):
            self.rules += 1
            chain, _, spec = line[3:].partition(" ")
            target = _target(spec)
            # All chains are declared before the first rule, in both variants.
            if target in self.chains:
                self.jumps.setdefault(chain, set()).add(target)
                if chain in self.built_in:
                    self.base_rules.append((chain, spec, target))


def read(family: Family, variant: Variant) -> dict[str, Table]:
    """Return the tables that exist, by name. A variant that is not installed has none.

    A table that iptables-nft-save cannot express is not among them. Raises BackendError.
    """
    return {table.name: table for table in _tables(family, variant)}


def read_all_with(prefix: str, family: Family, variant: Variant) -> dict[str, Table]:
    """Return the tables as `read` does. Raises BackendError if one with such chains is missing."""
    tables = read(family, variant)
    if variant is Variant.NF_TABLES:
        hidden = nft.tables_with_chains(family, prefix) - tables.keys()
        if hidden:
            raise unreadable(family, min(hidden), "it holds rules that iptables cannot express")
    return tables


def unreadable(family: Family, table: str, said: str) -> BackendError:
    """Return the error for an nf_tables table that iptables-nft-save does not show."""
    name = f"{nft.FAMILY_NAME[family]} {table}"
    return BackendError(
        f"reading the table {name}",
        f"{said}; look for rules that were not written by iptables: nft list table {name}",
        transient=False,
    )


def _tables(family: Family, variant: Variant) -> Iterator[Table]:
    if not tools.installed(tools.program(family, variant, "save")):
        return
    if variant is Variant.LEGACY and not legacy.tables(family):
        return
    table: Table | None = None
    for raw in tools.save(family, variant):
        line = raw.decode(errors="replace").rstrip("\n")
        if line.startswith("*"):
            table = Table(line[1:])
        elif line.startswith("COMMIT") and table is not None:
            yield table
            table = None
        elif table is not None:
            table.take(line)


def _target(spec: str) -> str:
    """Return the user chain that a rule leads to: as a target it has no options, so it is last.

    A comment ends in a quote, whatever it says.
    """
    *_, option, last = ["", "", *spec.split(" ")]
    return last if option in ("-j", "-g") else ""


def removal(
    table: str,
    *,
    jumps: Iterable[tuple[str, str]],
    chains: Iterable[str],
    emptied: Iterable[str] = (),
) -> list[str]:
    """Return the lines of iptables-restore input that deletes rules of built-in chains, and chains.

    `jumps` are (chain, spec as printed). `emptied` chains lose their rules and stay.
    """
    gone = sorted(chains)
    return [
        f"*{table}",
        *(f":{chain} - [0:0]" for chain in sorted([*gone, *emptied])),
        *(f"-D {base} {spec}" for base, spec in jumps),
        *(f"-X {chain}" for chain in gone),
        "COMMIT",
    ]
