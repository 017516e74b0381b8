"""Which parts of the kernel and of the tools the rules are made of, and which of them a host lacks.

Asking writes nothing and needs no namespace of its own; the kernel may load modules for it, as it
would for the rules.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from backends.iptables.driver import accounting
from backends.iptables.render.rules import Feature
from backends.kernel import ipset, nft
from backends.kernel.xtables import legacy, tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError


class ExtensionKind(enum.Enum):
    """The two kinds of extensions that a rule is made of, by the option that names one."""

    MATCH = "-m"
    TARGET = "-j"


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or a target, as the kernel and the tools know it."""

    kind: ExtensionKind
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """Something that rules of ours need.

    `rule` is one of the kind that needs it, for `table`; `module` serves it. Without `feature`
    there is no forwarding without it.
    """

    subject: str
    extensions: tuple[Extension, ...]
    table: str
    rule: str
    module: str
    feature: Feature | None = None

    @property
    def has_target(self) -> bool:
        """Whether one of its extensions is a target."""
        return any(each.kind is ExtensionKind.TARGET for each in self.extensions)

    @property
    def remedy(self) -> str:
        """What to do about it if it is missing."""
        return f"load the kernel module: modprobe {self.module}"


SET = "kproxy-trial"
"""The ipset that the rules of parts name."""

CONSEQUENCES = {
    Feature.AFFINITY: "no Service has sessionAffinity",
    Feature.HAIRPIN_MATCH: "each endpoint that may choose itself takes a rule of its own",
    Feature.LABELS: "others must not use the masquerade bit in marks of translated packets",
    Feature.REFUSAL: "what would be refused is dropped",
    Feature.SCTP: "SCTP ports are left out",
    Feature.COUNTERS: "two packet counters are missing",
}
"""What goes without each feature, in the words of a log line."""

MINOR = frozenset({Feature.HAIRPIN_MATCH, Feature.COUNTERS})
"""Features without which every packet is treated the same."""


def _match(name: str) -> Extension:
    return Extension(ExtensionKind.MATCH, name)


def _target(name: str) -> Extension:
    return Extension(ExtensionKind.TARGET, name)


def parts(family: Family) -> tuple[Part, ...]:
    """Return all that rules of a family are made of."""
    v4 = family is Family.IPV4
    to = "192.0.2.1:80" if v4 else "[2001:db8::1]:80"
    refuse = "-p tcp -j REJECT --reject-with tcp-reset"
    in_set = f"-m set --match-set {SET} src -j SET --add-set {SET} src --exist"
    chance = "-m statistic --mode random --probability 0.5 -j RETURN"
    label = "-m connlabel --label 1 --set -j RETURN"
    return (
        _part("comment", "filter", "-m comment --comment kp:0:1 -j RETURN"),
        _part("conntrack", "filter", "-m conntrack --ctstate NEW -j RETURN"),
        _part("addrtype", "nat", "-m addrtype --dst-type LOCAL -j RETURN"),
        _part("statistic", "nat", chance),
        _part("mark", "nat", "-m mark --mark 0x4000/0x4000 -j RETURN"),
        _part("MARK", "nat", "-j MARK --set-xmark 0x4000/0x4000", module="xt_mark"),
        _part("DNAT", "nat", f"-p tcp -j DNAT --to-destination {to}", module="xt_nat"),
        # --random-fully is as old as what ipsets need (Linux 3.14), so it is no part of its own.
        _part("MASQUERADE", "nat", "-j MASQUERADE --random-fully", module="xt_MASQUERADE"),
        _part(
            "REJECT",
            "filter",
            refuse,
            module="ipt_REJECT" if v4 else "ip6t_REJECT",
            feature=Feature.REFUSAL,
        ),
        _part(
            "bpf", "nat", '-m bpf --bytecode "1,6 0 0 0" -j RETURN', feature=Feature.HAIRPIN_MATCH
        ),
        _part("connlabel", "nat", label, feature=Feature.LABELS),
        _part("set", "nat", in_set, feature=Feature.AFFINITY),
        _part("sctp", "nat", "-p sctp -m sctp --dport 80 -j RETURN", feature=Feature.SCTP),
        Part("nfacct", (_match("nfacct"),), "filter", "", "xt_nfacct", Feature.COUNTERS),
    )


def _part(
    subject: str, table: str, rule: str, *, module: str = "", feature: Feature | None = None
) -> Part:
    words = rule.split()
    named = tuple(
        Extension(ExtensionKind(option), name)
        for option, name in itertools.pairwise(words)
        if option in ("-m", "-j") and name != "RETURN"
    )
    return Part(subject, named, table, rule, module or f"xt_{subject}", feature)


def missing(family: Family, variant: Variant) -> dict[Part, str]:
    """Return the parts that this host lacks, each with what says so.

    Raises BackendError if nobody answers, because the kernel lacks the variant or this process a
    capability that all rules need.
    """
    wanted = parts(family)
    found = {
        part: reason for part in wanted if (reason := _unknown_to_the_kernel(family, variant, part))
    }
    present = [part for part in wanted if part not in found]
    return found | _unknown_to_the_tools(family, variant, present)


def lacking(family: Family, variant: Variant) -> Mapping[Feature, str]:
    """Return the features that this host lacks the parts for, each with the reason.

    Raises BackendError if there can be no forwarding at all.
    """
    found = missing(family, variant)
    for part, reason in found.items():
        if part.feature is None:
            doing = f"using iptables {variant.value}"
            raise BackendError(doing, f"{reason}; {part.remedy}", transient=False)
    return {part.feature: reason for part, reason in found.items() if part.feature is not None}


def _unknown_to_the_kernel(family: Family, variant: Variant, part: Part) -> str:
    knows = legacy.knows if variant is Variant.LEGACY else nft.knows
    for each in part.extensions:
        if not knows(family, each.name, target=each.kind is ExtensionKind.TARGET):
            return f"the kernel lacks the {each.kind.name.lower()} {each.name}"
    if part.feature is Feature.AFFINITY:
        return ipset.why_unusable(family)
    if part.feature is Feature.COUNTERS:
        return accounting.why_unusable()
    return ""


def _unknown_to_the_tools(family: Family, variant: Variant, present: list[Part]) -> dict[Part, str]:
    """Return the parts that the program cannot speak of; asks once for all that are matches."""
    matches = [part for part in present if not part.has_target]
    if not tools.why_unknown(family, variant, [word for part in matches for word in _asking(part)]):
        present = [part for part in present if part.has_target]
    found = {part: tools.why_unknown(family, variant, _asking(part)) for part in present}
    return {part: reason for part, reason in found.items() if reason}


def _asking(part: Part) -> list[str]:
    """Return the words of a command line that only who knows the part's extensions understands.

    A target takes an option of its own: the program takes an unknown one for a chain's name. The
    option that names an ipset will not do, because it looks for it.
    """
    if part.feature is Feature.AFFINITY:
        return ["-m", "set", "-j", "SET", "--exist"]
    if part.has_target:
        return part.rule.split()
    return [word for each in part.extensions for word in (each.kind.value, each.name)]
