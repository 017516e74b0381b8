"""What a rule of nf_tables does, told from its expressions: those of iptables and any other.

Layouts: linux/netfilter/nf_tables.h; for iptables' own, linux/netfilter/xt_*.h.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

from backends.kernel.netlink import ATTRIBUTE, attributes, spans, text
from backends.kernel.nft import Rule
from backends.kernel.xtables.steps import MARK_MATCHES, TARGETS, Action, RuleStep

_EXPRESSIONS, _USERDATA = 4, 7  # NFTA_RULE_*
_NAME, _DATA = 1, 2  # NFTA_EXPR_*
_REGISTER, _VALUE = 1, 2  # NFTA_IMMEDIATE_*
_DATA_VALUE, _VERDICT = 1, 2  # NFTA_DATA_VALUE, NFTA_DATA_VERDICT
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2  # NFTA_VERDICT_*
_EXTENSION_NAME, _EXTENSION_DATA = 1, 3  # NFTA_MATCH_*, NFTA_TARGET_*
_LOOKUP_REGISTER = 3  # NFTA_LOOKUP_DREG
_LOADED_INTO, _LOADED_KEY = 1, 2  # NFTA_META_*, NFTA_CT_*
_MARK_KEY = 3  # NFT_META_MARK, NFT_CT_MARK
_STATE_KEY = 0  # NFT_CT_STATE
_FROM, _INTO, _MASK = 1, 2, 4  # NFTA_BITWISE_*
_COMPARED, _OPERATOR, _COMPARED_TO = 1, 2, 3  # NFTA_CMP_*
_NOT_EQUAL = 1  # NFT_CMP_NEQ
_COMMENT_TYPE = 0  # NFTNL_UDATA_RULE_COMMENT

_NO_VERDICT = bytes(4)  # NFT_REG_VERDICT is register 0
_ACTIONS = {
    0: Action.DENY,  # NF_DROP
    1: Action.ACCEPT,  # NF_ACCEPT
    3: Action.DENY,  # NF_QUEUE
    -3: Action.JUMP,  # NFT_JUMP
    -4: Action.GOTO,  # NFT_GOTO
    -5: Action.RETURN,  # NFT_RETURN
}
_STATEMENTS = {
    **dict.fromkeys(("nat", "masq", "redir", "tproxy"), Action.ACCEPT),
    **dict.fromkeys(("reject", "queue", "synproxy"), Action.DENY),
}
_NOT_A_CONDITION = ("counter", "objref", "log")

# struct xt_conntrack_mtinfo*: 146 bytes that only other conditions use, then the flags of what is
# asked and of what is inverted, and the states.
_CONNTRACK_FLAGS_AT = 146
_ONLY_NEW = struct.pack("=HHH", 1, 0, 8)
_ASKS_FOR_STATE = 1  # XT_CONNTRACK_STATE
_BEGINNING = ~7  # the bits of all states but invalid, established and related


class ParsedRule(NamedTuple):
    """A rule taken apart. `conditions` names its expressions but for comment, counter and verdict.

    `counted` says that it has a counter, as every rule that iptables wrote; `only_new` that it
    asks for nothing but a new connection, in iptables' words.
    """

    step: RuleStep
    comment: str
    counted: bool
    only_new: bool


def parse(rule: Rule) -> ParsedRule:
    """Take a rule apart."""
    parts = attributes(rule.content)
    reader = _Reader(_comment(parts.get(_USERDATA, b"")))
    listed = parts.get(_EXPRESSIONS, b"")
    for _, start, end in spans(listed, 0, len(listed)):
        expression = attributes(listed[start:end])
        reader.take(
            text(expression[_NAME]),
            attributes(expression.get(_DATA, b"")),
            listed[start - ATTRIBUTE.size : end],
        )
    return reader.result()


class _Reader:
    """Takes the expressions of one rule, in their order."""

    def __init__(self, comment: str) -> None:
        self._comment = comment
        self._counted = self._marked = False
        self._new = 0
        self._ongoing = False
        self._state = _State()
        self._conditions: list[bytes] = []
        self._action, self._chain = Action.PASS, ""

    def take(self, name: str, data: dict[int, bytes], whole: bytes) -> None:
        extension = text(data.get(_EXTENSION_NAME, b"")) if name in ("match", "target") else ""
        if name == "counter":
            self._counted = True
        elif name == "immediate" and data[_REGISTER] == _NO_VERDICT:
            self._take_verdict(attributes(attributes(data[_VALUE])[_VERDICT]))
        elif name == "target":
            self._action = TARGETS.get(extension, Action.PASS)
        elif name in _STATEMENTS:
            self._action = _STATEMENTS[name]
        elif extension == "comment":
            self._comment = text(data[_EXTENSION_DATA].partition(b"\0")[0])
        elif name == "lookup" and data.get(_LOOKUP_REGISTER) == _NO_VERDICT:
            self._action = Action.ANY
        elif name not in _NOT_A_CONDITION:
            self._conditions.append(whole)
            self._marked = self._marked or _asks_for_mark(name, extension, data)
            if extension == "conntrack":
                self._new += _is_only_new(data[_EXTENSION_DATA])
                self._ongoing = self._ongoing or _is_ongoing(data[_EXTENSION_DATA])
            self._ongoing = self._state.is_ongoing(name, data) or self._ongoing

    def result(self) -> ParsedRule:
        conditions = b"".join(self._conditions)
        step = RuleStep(self._action, self._chain, conditions, self._marked, self._ongoing)
        only_new = self._new == len(self._conditions) == 1
        return ParsedRule(step, self._comment, self._counted, only_new)

    def _take_verdict(self, verdict: dict[int, bytes]) -> None:
        code = int.from_bytes(verdict[_VERDICT_CODE], "big", signed=True)
        self._action = _ACTIONS.get(code, Action.PASS)
        self._chain = text(verdict.get(_VERDICT_CHAIN, b""))


class _State:
    """Follows how a native rule asks for states: load, mask, and compare with none."""

    def __init__(self) -> None:
        self._register = b""  # what holds the masked state; empty if none does
        self._states = 0

    def is_ongoing(self, name: str, data: dict[int, bytes]) -> bool:
        """Take the next expression; say whether no packet fits it that begins a connection."""
        register, states = self._register, self._states
        self._register, self._states = b"", 0
        if name == "ct" and int.from_bytes(data[_LOADED_KEY], "big") == _STATE_KEY:
            self._register = data.get(_LOADED_INTO, b"")
        elif name == "bitwise" and data[_FROM] == data[_INTO] == register and _MASK in data:
            self._register = register
            self._states = int.from_bytes(attributes(data[_MASK])[_DATA_VALUE], sys.byteorder)
        elif name == "cmp" and data[_COMPARED] == register and states:
            unequal = int.from_bytes(data[_OPERATOR], "big") == _NOT_EQUAL
            nothing = not any(attributes(data[_COMPARED_TO])[_DATA_VALUE])
            return unequal and nothing and not states & _BEGINNING
        return False


def _asks_for_mark(name: str, extension: str, data: dict[int, bytes]) -> bool:
    if name == "match":
        return extension in MARK_MATCHES
    loads = name in ("meta", "ct") and _LOADED_INTO in data
    return loads and int.from_bytes(data[_LOADED_KEY], "big") == _MARK_KEY


def _is_only_new(info: bytes) -> bool:
    end = _CONNTRACK_FLAGS_AT + len(_ONLY_NEW)
    return info[_CONNTRACK_FLAGS_AT:end] == _ONLY_NEW and not any(
        info[:_CONNTRACK_FLAGS_AT] + info[end:]
    )


def _is_ongoing(info: bytes) -> bool:
    asked, inverted, states = struct.unpack_from("=HHH", info, _CONNTRACK_FLAGS_AT)
    asks = asked & ~inverted & _ASKS_FOR_STATE
    return bool(asks and states) and not states & _BEGINNING


def _comment(userdata: bytes) -> str:
    """Return the comment that nft keeps beside the expressions: type, length, value."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at : at + 2]
        if kind == _COMMENT_TYPE:
            return text(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return ""
