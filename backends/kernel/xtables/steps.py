"""What a rule does with a packet, as far as the rules of others have to be understood."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple


class Action(enum.Enum):
    """What becomes of a packet that fits a rule."""

    PASS = "it meets the next rule"
    ACCEPT = "it is let through, or translated: the table is done with it"
    DENY = "it is dropped or refused, or a program decides"
    RETURN = "it goes back to where the chain was entered"
    JUMP = "it goes through a chain and comes back"
    GOTO = "it goes through a chain and comes back to where this one was entered"
    ANY = "a map decides, by any of these"


class RuleStep(NamedTuple):
    """One rule. `condition` is empty if every packet fits it; equal ones mean the same.

    - `marked` says that the condition asks for a packet's or a connection's mark: whoever set it
      has judged that packet before.
    - `ongoing` says that no packet fits it that begins a connection.
    """

    action: Action
    chain: str = ""
    condition: bytes = b""
    marked: bool = False
    ongoing: bool = False


TARGETS = {
    **dict.fromkeys(("ACCEPT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"), Action.ACCEPT),
    **dict.fromkeys(("DROP", "REJECT", "QUEUE", "NFQUEUE", "SYNPROXY", "TARPIT"), Action.DENY),
    "RETURN": Action.RETURN,
}
"""The targets of iptables that end a chain; all others let a packet go on."""

MARK_MATCHES = ("mark", "connmark")
"""The matches of iptables that ask for a mark."""

ONGOING = ("INVALID", "ESTABLISHED", "RELATED")
"""The states of packets that begin no connection, or one that another began already."""

_COMMENT = re.compile(r'-m comment --comment (?:"((?:[^"\\]|\\.)*)"|(\S+)) ?')
_ESCAPED = re.compile(r"\\(.)")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_TARGET = re.compile(r"(?:^| )-([jg]) (\S+)")
_STATES = re.compile(r"(?:^| )-m (?:conntrack --ct|state --)state ([A-Z,]+)(?: |$)")
_MARK = re.compile(rf"(?:^| )-m (?:{'|'.join(MARK_MATCHES)}) ")


class ParsedLine(NamedTuple):
    """A rule as iptables-save prints it, taken apart."""

    step: RuleStep
    comment: str
    condition: str


def parse(spec: str) -> ParsedLine:
    """Take a rule apart; `spec` is what iptables-save prints after the chain's name."""
    found = _COMMENT.search(spec)
    comment = "" if found is None else _ESCAPED.sub(r"\1", found[1] or found[2] or "")
    bare = spec if found is None else spec[: found.start()] + spec[found.end() :]
    unquoted = _QUOTED.sub(lambda quoted: '"' * len(quoted[0]), bare)
    target = _TARGET.search(unquoted)
    condition = (bare if target is None else bare[: target.start()]).strip()
    action, chain = (Action.PASS, "") if target is None else _lead(target[1], target[2])
    marked = bool(_MARK.search(condition))
    asked = _STATES.search(unquoted if target is None else unquoted[: target.start()])
    ongoing = asked is not None and set(asked[1].split(",")) <= set(ONGOING)
    step = RuleStep(action, chain, condition.encode(), marked, ongoing)
    return ParsedLine(step, comment, condition)


def _lead(option: str, name: str) -> tuple[Action, str]:
    # A user chain cannot have the name of a target that the kernel knows.
    if name in TARGETS:
        return TARGETS[name], ""
    return Action.GOTO if option == "g" else Action.JUMP, name
