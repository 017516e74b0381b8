"""What the rules and sets are made of. There is no forwarding without any of it."""

from __future__ import annotations

from enum import Enum

from backends.ipvs.render.sets import SetKind
from backends.kernel import ipset, ipset_elements
from backends.kernel.ipset_elements import ElementSet
from backends.kernel.xtables import parts as xtables_parts
from backends.kernel.xtables.parts import Part, part
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import to_sender
from kproxy.core.addresses import Family

_SET = "kproxy-ipvs-trial"
_MARKS = SetKind.LOCAL_POLICY.value


def parts(family: Family) -> tuple[Part[Enum], ...]:
    """Return all that rules of a family are made of."""
    refuse = "-p tcp -j REJECT --reject-with tcp-reset"
    clamp = "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
    reject = "ipt_REJECT" if family is Family.IPV4 else "ip6t_REJECT"
    return (
        part("ipvs", "mangle", "-m ipvs --ipvs -j RETURN"),
        _sets(),
        part("connlabel", "mangle", "-m connlabel --label 106 --set -j RETURN"),
        part("comment", "filter", "-m comment --comment kp:0:1 -j RETURN"),
        part("conntrack", "filter", "-m conntrack --ctstate NEW -j RETURN"),
        part("mark", "mangle", "-m mark --mark 0x1/0x1 -j RETURN"),
        part("MARK", "mangle", "-j MARK --set-xmark 0x1/0x1", module="xt_mark"),
        part("TCPMSS", "mangle", clamp),
        part("addrtype", "mangle", "-m addrtype --src-type LOCAL -j RETURN"),
        part("bpf", "nat", f"{to_sender(family)} -j RETURN"),
        part("MASQUERADE", "nat", "-j MASQUERADE --random-fully"),
        part("REJECT", "filter", refuse, module=reject),
    )


def require(family: Family, variant: Variant) -> None:
    """Raise BackendError if this host lacks one of the parts."""
    xtables_parts.lacking(family, variant, parts(family))


def make_trial_set(family: Family) -> None:
    """Make the ipset that the rules of parts name. Raises BackendError."""
    ipset_elements.make([ElementSet(_SET, _MARKS.type, family, _MARKS.marks)])


def _sets() -> Part[Enum]:
    rule = f"-m set --match-set {_SET} dst,dst -j SET --map-set {_SET} dst,dst --map-mark"
    return part(
        "set",
        "mangle",
        rule,
        # The options that name an ipset will not do, because the program looks for it.
        asked_with=("-m", "set", "-j", "SET", "--map-mark"),
        why_unusable=_why_no_sets,
    )


def _why_no_sets(family: Family) -> str:
    for type_of in sorted({kind.value.type for kind in SetKind}):
        reason = ipset_elements.why_impossible(type_of, family)
        if reason:
            return reason
    return ipset.why_unnamed()
