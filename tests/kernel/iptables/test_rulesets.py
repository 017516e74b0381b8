"""What is understood of the rules of others: the same in both variants, and of native ones."""

import pytest

from backends.kernel import nft
from backends.kernel.xtables import rulesets, steps
from backends.kernel.xtables.steps import Action
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.iptables.applied import iptables, run

pytestmark = pytest.mark.kernel

NEW = "-m conntrack --ctstate NEW"
COMMENT = '-m comment --comment "kubernetes \\"-j X\\" rules"'
CASES = {
    "-j X": (Action.JUMP, "X"),
    "-p tcp -g X": (Action.GOTO, "X"),
    f"{NEW} {COMMENT} -j X": (Action.JUMP, "X"),
    f"{COMMENT} {NEW} -j X": (Action.JUMP, "X"),
    f"-m conntrack --ctstate NEW,RELATED {COMMENT} -j X": (Action.JUMP, "X"),
    f"-p tcp {NEW} -j X": (Action.JUMP, "X"),
    f"{NEW} -m conntrack --ctdir ORIGINAL -j X": (Action.JUMP, "X"),
    "-p udp -m comment --comment short -j DROP": (Action.DENY, ""),
    "-m mark --mark 0x4/0x4 -j ACCEPT": (Action.ACCEPT, ""),
    "-m connmark ! --mark 0x4/0x4 -j REJECT": (Action.DENY, ""),
    "-m limit --limit 5/sec -j LOG --log-prefix \"-j X\"": (Action.PASS, ""),
    "-j MARK --set-xmark 0x1/0x1": (Action.PASS, ""),
    "-j NFQUEUE --queue-num 3": (Action.DENY, ""),
    "-o eth7 -j RETURN": (Action.RETURN, ""),
    "-p tcp": (Action.PASS, ""),
    "-m conntrack --ctstate INVALID -j DROP": (Action.DENY, ""),
    f"{COMMENT} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT": (Action.ACCEPT, ""),
    "-i eth7 -m conntrack --ctstate ESTABLISHED -j RETURN": (Action.RETURN, ""),
    "-m conntrack ! --ctstate ESTABLISHED -j ACCEPT": (Action.ACCEPT, ""),
    "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT": (Action.ACCEPT, ""),
    "-m conntrack --ctdir ORIGINAL -j ACCEPT": (Action.ACCEPT, ""),
}  # fmt: skip
ONLY_NEW = [f"{NEW} {COMMENT} -j X", f"{COMMENT} {NEW} -j X"]
ONGOING = list(CASES)[-6:-3]
MARKED = [case for case in CASES if "--mark " in case]


@pytest.fixture
def table(namespace, family, variant):
    """A filter table with one rule a case, and X, which one chain more leads to."""
    lines = [f"-A FORWARD {case}" for case in CASES]
    text = ["*filter", ":X - [0:0]", ":Y - [0:0]", *lines, "-A Y -j X", "-A X -j DROP", "COMMIT"]
    run(f"{iptables(family, variant, 'restore')} --noflush", "\n".join([*text, ""]))
    with rulesets.opened(family, variant) as tables:
        yield tables["filter"]


def test_both_variants_tell_the_same_of_rules_of_iptables(table):
    rules = table.built_in["FORWARD"]
    assert [(rule.step.action, rule.step.chain) for rule in rules] == list(CASES.values())
    for case, rule in zip(CASES, rules, strict=True):
        restricts = not case.startswith(("-j", f"{COMMENT} -j"))
        assert bool(rule.step.condition) == (restricts and case != "-j X"), case
        assert rule.only_new == (case in ONLY_NEW), case
        assert rule.conditional == (restricts and case not in ONLY_NEW), case
        assert rule.step.marked == (case in MARKED), case
        assert rule.step.ongoing == (case in ONGOING), case
        if COMMENT in case:
            assert rule.comment == 'kubernetes "-j X" rules', case
    assert table.chains == {"X", "Y"}
    assert [(each.action, each.chain) for each in table.steps("Y")] == [(Action.JUMP, "X")]
    assert table.references("X") == 8
    assert table.references("Y") == 0
    assert rulesets.held(table, {"X", "Y"}, rules) == set()
    assert rulesets.held(table, {"X", "Y"}, rules[1:]) == {"X"}
    assert rulesets.held(table, {"X"}, rules) == {"X"}


def test_tables_are_surveyed_without_keeping_their_rules(table, family, variant):
    assert sorted(rulesets.chain_names(family, variant)) == ["X", "Y"]
    assert rulesets.chain_names(family, variant, ("nat",)) == []
    assert rulesets.count_rules(family, variant) == len(CASES) + 2


def test_one_condition_is_equal_to_itself_under_another_target(namespace, family, variant):
    text = """*filter
:X - [0:0]
-A FORWARD -o weave -m comment --comment "must be first" -j X
-A FORWARD -o weave -m conntrack --ctstate NEW -j LOG
-A FORWARD -o weave -j DROP
-A FORWARD -o weaver -j DROP
COMMIT
"""
    run(f"{iptables(family, variant, 'restore')} --noflush", text)
    with rulesets.opened(family, variant) as tables:
        jump, _, same, other = (
            rule.step.condition for rule in tables["filter"].built_in["FORWARD"]
        )
    assert jump == same != other


def test_a_target_is_told_whatever_comments_and_strings_say():
    spec = '-m string --string "x -j DROP" --algo bm -m comment --comment "-j \\" -g Y" -j Z'
    step, comment, condition = steps.parse(spec)
    assert step == steps.RuleStep(Action.JUMP, "Z", condition.encode())
    assert comment == '-j " -g Y'
    assert steps.parse("-m comment --comment DROP -j LOG").step.chain == "LOG"


NATIVE = {
    "meta mark set meta mark and 0xff00ffff xor 0x00040000": (Action.PASS, ""),
    "meta mark and 4 == 4 accept": (Action.ACCEPT, ""),
    "ct mark 5 drop": (Action.DENY, ""),
    "tcp dport { 1, 2 } reject": (Action.DENY, ""),
    "ct state vmap { invalid : drop, established : jump other }": (Action.ANY, ""),
    "udp dport vmap @decisions": (Action.ANY, ""),
    "limit rate 5/second counter jump other": (Action.JUMP, "other"),
    "ct state new goto other": (Action.GOTO, "other"),
    "update @seen { PROTO saddr timeout 5s }": (Action.PASS, ""),
    'log prefix "x"': (Action.PASS, ""),
    "counter name mine": (Action.PASS, ""),
    'counter return comment "kubernetes native"': (Action.RETURN, ""),
    "fib daddr type local accept": (Action.ACCEPT, ""),
    "ct state established,related accept": (Action.ACCEPT, ""),
    "tcp dport 9 ct state invalid drop": (Action.DENY, ""),
    "ct state established,new accept": (Action.ACCEPT, ""),
    "ct state != established accept": (Action.ACCEPT, ""),
    "ct status and 2 != 0 accept": (Action.ACCEPT, ""),
}


def test_native_rules_are_understood_as_far_as_they_matter(namespace, family):
    v4 = family is Family.IPV4
    rules = "\n".join(NATIVE).replace("PROTO", "ip" if v4 else "ip6")
    text = f"""table {nft.FAMILY_NAME[family]} filter {{
counter mine {{ }}
set seen {{ type {"ipv4_addr" if v4 else "ipv6_addr"}; flags timeout; }}
map decisions {{ type inet_service : verdict; elements = {{ 9 : jump other }}; }}
chain other {{
}}
chain FORWARD {{
type filter hook forward priority 0; policy accept;
{rules}
}}
}}
"""
    run("nft -f -", text)
    with rulesets.opened(family, Variant.NF_TABLES) as tables:
        table = tables["filter"]
        found = table.built_in["FORWARD"]
        assert [(rule.step.action, rule.step.chain) for rule in found] == list(NATIVE.values())
        marked = [n for n, rule in enumerate(found) if rule.step.marked]
        assert marked == [0, 1, 2]
        ongoing = [n for n, rule in enumerate(found) if rule.step.ongoing]
        assert ongoing == [13, 14]
        assert [rule.comment for rule in found if rule.comment] == ["kubernetes native"]
        assert table.references("other") == 4, "two rules and two elements of maps"
        assert rulesets.held(table, {"other"}, found) == {"other"}
    assert rulesets.count_rules(family, Variant.NF_TABLES) == 2, "iptables has a counter in each"


def test_what_is_not_iptables_business_is_not_read(namespace, family):
    run(f"nft add table {nft.FAMILY_NAME[family]} mine")
    run(f"nft add chain {nft.FAMILY_NAME[family]} mine KPROXY-X")
    run("nft add table inet filter")
    run("nft add chain inet filter KPROXY-X")
    with rulesets.opened(family, Variant.NF_TABLES) as tables:
        assert tables == {}
