"""What the host offers to rules: the tools, the tables, and the parts that rules are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from backends.kernel import nft
from backends.kernel.nft import Entrance
from backends.kernel.xtables import parts, tools, trial, variant
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.parts import F, Part
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError, Finding

_BRIDGE = {
    Family.IPV4: Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    Family.IPV6: Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
}

# The built-in chains with our jumps, as iptables makes them (NF_INET_* and NF_IP_PRI_* numbers).
_ENTRANCES = {
    ("mangle", "PREROUTING"): Entrance(0, -150, "filter"),
    ("mangle", "FORWARD"): Entrance(2, -150, "filter"),
    ("mangle", "OUTPUT"): Entrance(3, -150, "route"),
    ("filter", "INPUT"): Entrance(1, 0, "filter"),
    ("filter", "FORWARD"): Entrance(2, 0, "filter"),
    ("filter", "OUTPUT"): Entrance(3, 0, "filter"),
    ("nat", "PREROUTING"): Entrance(0, -100, "nat"),
    ("nat", "OUTPUT"): Entrance(3, -100, "nat"),
    ("nat", "POSTROUTING"): Entrance(4, 100, "nat"),
}

_INSTALL = "install the Debian package iptables"


@dataclass(frozen=True, slots=True)
class Needs(Generic[F]):
    """What a data path's rules of a family need.

    - `make_sets` makes the ipsets that the rules of `parts` name.
    - `consequences` says what goes without each feature.
    """

    ours: Ours
    parts: tuple[Part[F], ...]
    make_sets: Callable[[Family], None]
    consequences: Mapping[F, str]


def findings(family: Family, needs: Needs[F], wanted: Variant | None) -> list[Finding]:
    """Return what was found, one line for each subject; a miss comes with its remedy."""
    found = list(_tools(family))
    try:
        if any(finding.ok for finding in found):
            chosen = variant.choose(family, needs.ours, wanted=wanted)
            found += _variants(family, chosen)
            found += _tables(family, chosen, needs.ours)
            found += _parts(family, chosen, needs)
        else:
            found.append(Finding("iptables", False, "no variant is installed", _INSTALL))
    except BackendError as error:
        found.append(Finding("rules", False, str(error), "run as root on the node"))
    return found


def bridge(family: Family) -> Finding:
    """Return whether rules see what a Linux bridge passes on."""
    subject = "br_netfilter"
    path = _BRIDGE[family]
    only = "this matters only where pods of one node are joined by a Linux bridge"
    try:
        on = path.read_text().strip() != "0"
    except OSError:
        return Finding(subject, True, f"not loaded; {only}")
    return Finding(subject, True, "on" if on else f"{path.name} is 0; {only}")


def _tools(family: Family) -> Iterator[Finding]:
    for kind in Variant:
        names = [tools.program(family, kind, verb) for verb in ("restore", "save")]
        missing = [name for name in names if not tools.installed(name)]
        if missing:
            subject, detail = f"iptables {kind.value}", f"{', '.join(missing)} not found"
            yield Finding(subject, False, detail, _INSTALL, blocking=False)
        else:
            yield Finding(f"iptables {kind.value}", True, ", ".join(names))


def _variants(family: Family, chosen: Variant) -> Iterator[Finding]:
    used = variant.in_use(family)
    if len(used) > 1:
        yield Finding(
            "variant",
            False,
            f"both variants hold rules; {chosen.value} is chosen, and the other one's rules apply "
            "as well",
            "let everything on the node use one variant: update-alternatives --config iptables",
            blocking=False,
        )
    else:
        yield Finding("variant", True, f"{chosen.value} is chosen")


def _tables(family: Family, chosen: Variant, ours: Ours) -> Iterator[Finding]:
    """Tell of each table whether our rules can stand there beside those of others."""
    if chosen is Variant.LEGACY:
        return
    entrances = {(each.table, each.name): each.entrance for each in nft.chains(family)}
    for table in ours.tables:
        names = [name for where, name in _ENTRANCES if where == table]
        strange = [
            name
            for name in names
            if entrances.get((table, name), _ENTRANCES[table, name]) != _ENTRANCES[table, name]
        ]
        if strange:
            yield _not_iptables(family, table, strange[0])
        elif _shown(family, table):
            yield Finding(f"table {table}", True, "iptables understands all of it")
        else:
            detail = "holds rules that iptables cannot show; kproxy works beside them"
            yield Finding(f"table {table}", True, detail)


def _not_iptables(family: Family, table: str, chain: str) -> Finding:
    where = f"{nft.FAMILY_NAME[family]} {table}"
    return Finding(
        f"table {table}",
        False,
        f"somebody's chain {chain} in the table {where} has another type, hook or priority than "
        "iptables' own, which therefore cannot be made",
        f"give it another name or a table of its own: nft list chain {where} {chain}",
    )


def _shown(family: Family, table: str) -> bool:
    """Say whether iptables-nft-save prints a table."""
    try:
        lines = list(tools.save(family, Variant.NF_TABLES, table))
    except BackendError:
        return False
    return any(line.startswith(b"*") for line in lines)


def _parts(family: Family, chosen: Variant, needs: Needs[F]) -> Iterator[Finding]:
    refused = _refused(family, chosen, needs)
    for part in needs.parts:
        subject = f"{chosen.value} {part.subject}"
        if part not in refused:
            yield Finding(subject, True, "usable")
        elif part.feature is None:
            yield Finding(subject, False, refused[part], part.remedy)
        else:
            detail = f"{refused[part]}: {needs.consequences[part.feature]}"
            yield Finding(subject, False, detail, part.remedy, blocking=False)


def _refused(family: Family, chosen: Variant, needs: Needs[F]) -> dict[Part[F], str]:
    """Return the parts that are missing, each with the reason: by asking, then by trying."""
    missing = parts.missing(family, chosen, needs.parts)
    present = [part for part in needs.parts if part.rule and part not in missing]
    try:
        return missing | trial.refusals(family, chosen, present, needs.make_sets)
    except BackendError:
        return missing  # trying takes a namespace, for which not everybody has the privilege
