"""One rule of iptables: a node that forwards nothing by itself lets what we translated through.

The programs mark what they translated before netfilter sees it. The rule is in each variant that
has a FORWARD chain, as anybody's policy of DROP there ends every packet that no rule accepts; where
there is no such chain, there is no such policy, and none is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backends.kernel import nft
from backends.kernel.xtables import legacy, placement, rulesets, tools
from backends.kernel.xtables.rulesets import BaseRule, Table
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy.chains import is_kube_proxys
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_CHAIN = "FORWARD"
_COMMENT = "kproxy ebpf"
# Of kube-proxy, and of kproxy where it uses iptables. They drop what conntrack calls invalid, as it
# does where it sees one direction alone: pods on one bridge answer each other past the node.
_OTHER_PROXYS = frozenset({"KUBE-FORWARD", "KPROXY-FORWARD"})
_MOVES = 3  # of a rule that others overtake; after that its place is theirs to mind

Look = int | legacy.Info | None


class ForwardingRule:
    """The rule of one family, kept where it is needed.

    The mark has to be ours alone: others may use the bit together with bits of theirs.
    """

    def __init__(self, family: Family, mark: int) -> None:
        self._family = family
        self._rule = f"-m mark --mark {mark:#x}/0xffffffff"
        self._comment = f"{_COMMENT} {mark:#x}"
        self._seen: dict[Variant, Look] = {}

    def missing(self) -> bool:
        """Say, cheaply, whether somebody wrote to a table that may need it since `ensure`."""
        return any(self._looked(variant) != self._seen.get(variant) for variant in Variant)

    def ensure(self) -> int:
        """Make the rule where it is missing; return in how many variants it was.

        A variant that refuses does not keep it from the other one. Raises BackendError.
        """
        made = 0
        failure: BackendError | None = None
        for variant in Variant:
            before = self._looked(variant)
            try:
                made += self._ensure(variant)
            except BackendError as error:
                failure = failure or error
            else:
                self._seen[variant] = before
        if failure is not None:
            raise failure
        return made

    def _ensure(self, variant: Variant) -> int:
        with _filter(self._family, variant) as table:
            if table is None:
                return 0
            ours = _ours(table)
            right = [rule for rule in ours if rule.comment == self._comment]
            wrong = [rule for rule in ours if rule.comment != self._comment]
            behind = bool(right) and _is_behind(table, right[0])
            place = _place(table, self._comment)
        if right and not wrong and not behind:
            return 0
        if behind or not right:
            self._put(variant, place, moved=behind)
            self._put_behind_engines(variant)
        if wrong:
            rulesets.remove(self._family, variant, "filter", rules=wrong, chains=())
        return 1

    def _put_behind_engines(self, variant: Variant) -> None:
        """Move our rule if it came to stand before an engine's jump, made at the same moment."""
        for _ in range(_MOVES):
            with _filter(self._family, variant) as table:
                place = 0 if table is None else self._overtaken(table)
            if not place:
                return
            self._put(variant, place, moved=True)

    def _overtaken(self, table: Table) -> int:
        """Return how many other rules ours should stand behind, 0 if it does."""
        comments = [rule.comment for rule in table.built_in[_CHAIN]]
        if self._comment not in comments:
            return 0  # somebody deleted it at this moment, which the next look finds
        place = _place(table, self._comment)
        return place if comments.index(self._comment) < place else 0

    def _put(self, variant: Variant, place: int, *, moved: bool) -> None:
        """Write our rule behind so many others; one that is there already goes first."""
        text = f'-m comment --comment "{self._comment}" {self._rule} -j ACCEPT'
        lines = [f"-D {_CHAIN} {text}"] * moved + [f"-I {_CHAIN} {place + 1} {text}"]
        tools.restore(self._family, variant, ["*filter", *lines, "COMMIT"])

    def _looked(self, variant: Variant) -> Look:
        if variant is Variant.LEGACY:
            return legacy.info(self._family, "filter")
        return nft.generation() if nft.supported() else None


def remove(family: Family) -> int:
    """Remove the rule from both variants; return how many there were. Raises BackendError."""
    return rulesets.in_both(lambda variant: _remove_from(family, variant))


def _remove_from(family: Family, variant: Variant) -> int:
    with _filter(family, variant) as table:
        ours = [] if table is None else _ours(table)
    if ours:
        rulesets.remove(family, variant, "filter", rules=ours, chains=())
    return len(ours)


@contextmanager
def _filter(family: Family, variant: Variant) -> Iterator[Table | None]:
    """Give the table with the chain, to be read within the block; None where there is none."""
    with rulesets.opened(family, variant, ("filter",)) as tables:
        table = tables.get("filter")
        yield table if table is not None and _CHAIN in table.built_in else None


def _ours(table: Table) -> list[BaseRule]:
    return [rule for rule in table.built_in[_CHAIN] if rule.comment.startswith(_COMMENT)]


def _place(table: Table, comment: str) -> int:
    """Return how many rules stay before the one that has this comment.

    Those are the ones before a proxy's, else the policy engines'.
    """
    rules = [rule for rule in table.built_in[_CHAIN] if rule.comment != comment]
    ours = _ours(table)
    others = [rule for rule in rules if rule not in ours]
    count = _proxys(others)
    if count is None:
        count = placement.leading([rule.step for rule in others], table.steps, is_kube_proxys)
    return rules.index(others[count - 1]) + 1 if count else 0


def _is_behind(table: Table, rule: BaseRule) -> bool:
    """Say whether a rule stands behind a proxy's."""
    rules = table.built_in[_CHAIN]
    proxys = _proxys(rules)
    return proxys is not None and proxys < rules.index(rule)


def _proxys(rules: Sequence[BaseRule]) -> int | None:
    """Return how many rules are before the first of a proxy, None where there is none."""
    return next((at for at, each in enumerate(rules) if each.step.chain in _OTHER_PROXYS), None)
