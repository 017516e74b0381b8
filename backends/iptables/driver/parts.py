"""What the rules are made of, and what a host costs that lacks some of it."""

from __future__ import annotations

from collections.abc import Mapping

from backends.iptables.driver import accounting
from backends.iptables.render.rules import AffinitySet, Feature
from backends.kernel import ipset
from backends.kernel.xtables import parts as xtables_parts
from backends.kernel.xtables.parts import Part, extensions, part
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_SET = "kproxy-trial"

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


def parts(family: Family) -> tuple[Part[Feature], ...]:
    """Return all that rules of a family are made of."""
    v4 = family is Family.IPV4
    to = "192.0.2.1:80" if v4 else "[2001:db8::1]:80"
    refuse = "-p tcp -j REJECT --reject-with tcp-reset"
    chance = "-m statistic --mode random --probability 0.5 -j RETURN"
    label = "-m connlabel --label 1 --set -j RETURN"
    return (
        part("comment", "filter", "-m comment --comment kp:0:1 -j RETURN"),
        part("conntrack", "filter", "-m conntrack --ctstate NEW -j RETURN"),
        part("addrtype", "nat", "-m addrtype --dst-type LOCAL -j RETURN"),
        part("statistic", "nat", chance),
        part("mark", "nat", "-m mark --mark 0x4000/0x4000 -j RETURN"),
        part("MARK", "nat", "-j MARK --set-xmark 0x4000/0x4000", module="xt_mark"),
        part("DNAT", "nat", f"-p tcp -j DNAT --to-destination {to}", module="xt_nat"),
        # --random-fully is as old as what ipsets need (Linux 3.14), so it is no part of its own.
        part("MASQUERADE", "nat", "-j MASQUERADE --random-fully", module="xt_MASQUERADE"),
        part(
            "REJECT",
            "filter",
            refuse,
            module="ipt_REJECT" if v4 else "ip6t_REJECT",
            feature=Feature.REFUSAL,
        ),
        part(
            "bpf", "nat", '-m bpf --bytecode "1,6 0 0 0" -j RETURN', feature=Feature.HAIRPIN_MATCH
        ),
        part("connlabel", "nat", label, feature=Feature.LABELS),
        _affinity(),
        part("sctp", "nat", "-p sctp -m sctp --dport 80 -j RETURN", feature=Feature.SCTP),
        Part(
            subject="nfacct",
            extensions=extensions("-m nfacct"),
            table="filter",
            rule="",
            module="xt_nfacct",
            feature=Feature.COUNTERS,
            why_unusable=lambda _: accounting.why_unusable(),
        ),
    )


def make_trial_set(family: Family) -> None:
    """Make the ipset that the rules of parts name. Raises BackendError."""
    for reason in ipset.ensure([AffinitySet(_SET, family, 1)]).values():
        raise BackendError("making an ipset", reason, transient=False)


def lacking(family: Family, variant: Variant) -> Mapping[Feature, str]:
    """Return the features that this host lacks the parts for, each with the reason.

    Raises BackendError if there can be no forwarding at all.
    """
    return xtables_parts.lacking(family, variant, parts(family))


def _affinity() -> Part[Feature]:
    rule = f"-m set --match-set {_SET} src -j SET --add-set {_SET} src --exist"
    return part(
        "set",
        "nat",
        rule,
        feature=Feature.AFFINITY,
        # The options that name an ipset will not do, because the program looks for it.
        asked_with=("-m", "set", "-j", "SET", "--exist"),
        why_unusable=ipset.why_unusable,
    )
