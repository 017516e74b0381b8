"""What the host offers to this data path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.iptables.driver import parts, trial
from backends.iptables.driver.ours import OURS
from backends.iptables.driver.parts import Part
from backends.iptables.render.rules import TABLES
from backends.kernel import nft, node
from backends.kernel.nft import Entrance
from backends.kernel.xtables import tools, variant
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError, Finding

_BRIDGE = {
    Family.IPV4: Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    Family.IPV6: Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
}

# The built-in chains with our jumps, as iptables makes them (NF_INET_* and NF_IP_PRI_* numbers).
_ENTRANCES = {
    ("filter", "INPUT"): Entrance(1, 0, "filter"),
    ("filter", "FORWARD"): Entrance(2, 0, "filter"),
    ("filter", "OUTPUT"): Entrance(3, 0, "filter"),
    ("nat", "PREROUTING"): Entrance(0, -100, "nat"),
    ("nat", "OUTPUT"): Entrance(3, -100, "nat"),
    ("nat", "POSTROUTING"): Entrance(4, 100, "nat"),
}

_INSTALL = "install the Debian package iptables"


def check(family: Family, *, wanted: Variant | None = None) -> list[Finding]:
    """Return what was found, one line for each subject; a miss comes with its remedy."""
    tools_found = list(_tools(family))
    findings = list(tools_found)
    try:
        if any(finding.ok for finding in tools_found):
            chosen = variant.choose(family, OURS, wanted=wanted)
            findings += _variants(family, chosen)
            findings += _tables(family, chosen)
            findings += _parts(family, chosen)
        else:
            findings.append(Finding("iptables", False, "no variant is installed", _INSTALL))
    except BackendError as error:
        findings.append(Finding("rules", False, str(error), "run as root on the node"))
    findings += [node.forwarding(family), _bridge(family), node.default_route(family)]
    return findings


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


def _tables(family: Family, chosen: Variant) -> Iterator[Finding]:
    """Tell of each table whether our rules can stand there beside those of others."""
    if chosen is Variant.LEGACY:
        return
    entrances = {(each.table, each.name): each.entrance for each in nft.chains(family)}
    for table in TABLES:
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


def _parts(family: Family, chosen: Variant) -> Iterator[Finding]:
    refused = _refused(family, chosen)
    for part in parts.parts(family):
        subject = f"{chosen.value} {part.subject}"
        if part not in refused:
            yield Finding(subject, True, "usable")
        elif part.feature is None:
            yield Finding(subject, False, refused[part], part.remedy)
        else:
            detail = f"{refused[part]}: {parts.CONSEQUENCES[part.feature]}"
            yield Finding(subject, False, detail, part.remedy, blocking=False)


def _refused(family: Family, chosen: Variant) -> dict[Part, str]:
    """Return the parts that are missing, each with the reason: by asking, then by trying."""
    missing = parts.missing(family, chosen)
    present = [part for part in parts.parts(family) if part.rule and part not in missing]
    try:
        return missing | trial.refusals(family, chosen, present)
    except BackendError:
        return missing  # trying takes a namespace, for which not everybody has the privilege


def _bridge(family: Family) -> Finding:
    subject = "br_netfilter"
    path = _BRIDGE[family]
    only = "this matters only where pods of one node are joined by a Linux bridge"
    try:
        on = path.read_text().strip() != "0"
    except OSError:
        return Finding(subject, True, f"not loaded; {only}")
    return Finding(subject, True, "on" if on else f"{path.name} is 0; {only}")
