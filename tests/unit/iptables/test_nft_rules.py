"""Rules of nf_tables with expressions that this kernel does not have, or that nobody knows yet."""

from backends.kernel import nft_rules
from backends.kernel.netlink import NESTED, attribute, text_attribute
from backends.kernel.nft import Rule
from backends.kernel.xtables.steps import Action

FLOW_TABLE = attribute(1 | NESTED, text_attribute(1, "flow_offload") + attribute(2 | NESTED, b""))
UNKNOWN = attribute(1 | NESTED, text_attribute(1, "of-tomorrow"))
COUNTER = attribute(1 | NESTED, text_attribute(1, "counter") + attribute(2 | NESTED, b""))
DROP = attribute(
    1 | NESTED,
    text_attribute(1, "immediate")
    + attribute(
        2 | NESTED,
        attribute(1, bytes(4))
        + attribute(2 | NESTED, attribute(2 | NESTED, attribute(1, bytes(4)))),
    ),
)


def parsed(*expressions: bytes, userdata: bytes = b"") -> nft_rules.ParsedRule:
    content = attribute(4 | NESTED, b"".join(expressions)) + attribute(7, userdata)
    return nft_rules.parse(Rule(b"", content))


def test_an_unknown_expression_is_a_condition_and_decides_nothing():
    for expression in (FLOW_TABLE, UNKNOWN):
        found = parsed(COUNTER, expression)
        assert found.step.action is Action.PASS
        assert found.step.condition
        assert found.counted
        assert not found.only_new


def test_what_follows_an_unknown_expression_is_understood():
    assert parsed(UNKNOWN, DROP).step.action is Action.DENY
    assert not parsed(DROP).step.condition


def test_a_rule_without_expressions_lets_packets_go_on():
    assert parsed().step.action is Action.PASS
    assert nft_rules.parse(Rule(b"", b"")).step.action is Action.PASS


def test_userdata_of_any_kind_is_read_for_its_comment_alone():
    assert parsed(userdata=b"\x01\x02xx\x00\x03hi\x00").comment == "hi"
    for strange in (b"\x01", b"\x00", b"\x00\xff", b"\x01\xffabc", b"\x00\x03\xff\xfe\x00"):
        assert isinstance(parsed(userdata=strange).comment, str)
