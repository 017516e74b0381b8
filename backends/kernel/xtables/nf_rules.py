"""A table of the nf_tables variant, read over netlink and reduced to what is ours.

iptables-nft-save takes eight times as long for a big table, and shows nothing at all of one that
holds a rule it cannot express. As in `saved`, nothing is read for its meaning.
"""

from __future__ import annotations

import re
import struct

from backends.kernel import nft
from backends.kernel.netlink import Netlink
from backends.kernel.nft import Rule, RuleReader
from backends.kernel.xtables.ours import Ours
from backends.kernel.xtables.saved import ALTERED, Seen
from backends.kernel.xtables.wording import COMMENT_PREFIX, chain_key, jump_key
from kproxy.core.addresses import Family

_FINGERPRINT = re.compile(re.escape(COMMENT_PREFIX.encode()) + rb"([0-9a-z]+:[0-9]+)\0")


def _header(size: int, kind: int) -> bytes:
    """Return the header of an attribute (struct nlattr) as a pattern."""
    return re.escape(struct.pack("=HH", 4 + size, kind))


# NFTA_VERDICT_CODE is NFT_JUMP (-3) or NFT_GOTO (-4), NFTA_VERDICT_CHAIN follows.
_LEADING = _header(4, 1) + rb"\xff\xff\xff[\xfd\xfc]..\x02\0"

# The expression "counter", with NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS.
_COUNTER_NAME = b"counter\0"
_COUNTER = re.compile(
    _COUNTER_NAME + b"(?:.{4})" + _header(8, 1) + b".{8}" + _header(8, 2) + b".{8}", re.DOTALL
)


def read(family: Family, table: str, ours: Ours) -> Seen:
    """Return what is ours in a table. Raises BackendError."""
    seen = Seen()
    jump = re.compile(_LEADING + b"(" + ours.pattern + rb"[^\0]+)\0", re.DOTALL)
    with Netlink(f"reading the nf_tables table {table}") as netlink:
        reader = RuleReader(family, netlink)
        for chain in nft.chains(family):
            if chain.table != table:
                continue
            if chain.base:
                for rule in reader.rules(table, chain.name):
                    if found := jump.search(rule.content):
                        key = jump_key(table, chain.name, found[1].decode(errors="replace"))
                        seen.add_jump(key, _fingerprint(rule), _lasting(rule))
            elif ours.has(chain.name):
                _take_chain(seen, table, chain.name, reader.rules(table, chain.name))
    return seen


def _take_chain(seen: Seen, table: str, name: str, rules: list[Rule]) -> None:
    key = chain_key(table, name)
    if rules:
        content = b"".join(map(_lasting, rules))
        seen.add_chain(key, len(rules), _fingerprint(rules[0]), content)
    else:
        seen.image[key] = ALTERED


def _fingerprint(rule: Rule) -> bytes | None:
    found = _FINGERPRINT.search(rule.content)
    return found and found[1]


def _lasting(rule: Rule) -> bytes:
    """Return what stays the same while the rule does, also if somebody loads it again.

    That is all but its counter. One of another layout cannot be left out; the handle has to do
    then, and loading the same rule again is an alteration.
    """
    counter = _COUNTER.search(rule.content)
    if counter is not None:
        return rule.content[: counter.start()] + rule.content[counter.end() :]
    return rule.handle if _COUNTER_NAME in rule.content else rule.content
