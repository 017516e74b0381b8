"""What is asked of nf_tables directly, over netlink.

Layouts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import hashlib
import re
from typing import NamedTuple

from backends.kernel.netlink import (
    ACK,
    ATTRIBUTE,
    DUMP,
    REQUEST,
    TYPE_MASK,
    Attributes,
    Netlink,
    attribute,
    attributes,
    netfilter,
    text,
    text_attribute,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE, _DELETE_TABLE, _GET_CHAIN, _DELETE_CHAIN, _GET_RULE, _DELETE_RULE, _GET_GENERATION = (
    _SUBSYSTEM | number for number in (1, 2, 4, 5, 7, 8, 16)
)
_BATCH_BEGIN, _BATCH_END = 16, 17
_COMPAT_GET = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET
_COMPAT_NAME, _COMPAT_REVISION, _COMPAT_TYPE = 1, 2, 3  # NFTA_COMPAT_*; type 1 is a target
_GENERATION_ID = 1  # NFTA_GEN_ID
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_USE, _CHAIN_TYPE = 1, 3, 4, 6, 7  # NFTA_CHAIN_*
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2  # NFTA_HOOK_*
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4  # NFTA_RULE_*
FAMILY_NAME = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_PROTOCOL = {Family.IPV4: 2, Family.IPV6: 10}  # NFPROTO_*
_EITHER_PROTOCOL = 1  # NFPROTO_INET

_DUMP_TRIES = 10  # of a listing that others disturb; one of 20,000 chains takes 30 ms


class Entrance(NamedTuple):
    """Where packets enter a base chain by themselves: NF_INET_* number, priority, chain type."""

    hook: int
    priority: int
    kind: str


class Chain(NamedTuple):
    """A chain. `uses` counts its rules and whatever leads to it, elements of maps included."""

    table: str
    name: str
    entrance: Entrance | None
    uses: int

    @property
    def base(self) -> bool:
        """Whether packets enter it by themselves."""
        return self.entrance is not None


class Rule(NamedTuple):
    """One rule: the number that no other rule of its table ever has, and its content as sent.

    The content has the expressions first. Counters of packets are part of it.
    """

    handle: bytes
    content: bytes


def generation() -> int:
    """Return how many transactions this network namespace's ruleset has seen, modulo 2**32."""
    with Netlink("asking nf_tables for its generation") as netlink:
        netlink.send(netfilter(_GET_GENERATION, REQUEST, 0))
        return int.from_bytes(attributes(next(netlink.answers()))[_GENERATION_ID], "big")


def chains_digest(family: Family, pattern: bytes) -> bytes:
    """Return a digest of the handles and use counts of chains whose names begin with a pattern.

    A chain's use counts its rules and the jumps to it, so one rule more or less shows in it, and
    a chain that was deleted and made again has another handle. Nothing else of a chain changes.
    """
    ours = re.compile(rb"\0" + pattern)
    digest = hashlib.blake2b(digest_size=8)
    for chain in _chains(_PROTOCOL[family]):
        if ours.search(chain):
            digest.update(chain)
    return digest.digest()


def chains(family: Family) -> list[Chain]:
    """Return all chains of a family."""
    return [_chain(attributes(answer)) for answer in _chains(_PROTOCOL[family])]


def chains_of_either(family: Family) -> list[Chain]:
    """Return all chains that packets of a family may meet, of tables for both families too."""
    protocols = (_PROTOCOL[family], _EITHER_PROTOCOL)
    return [_chain(attributes(answer)) for each in protocols for answer in _chains(each)]


class RuleReader:
    """Reads rules chain by chain.

    Dumps of whole tables take longer: the kernel begins each of their parts by counting to where
    the last one ended. And in a big one somebody's change always falls.
    """

    def __init__(self, family: Family, netlink: Netlink) -> None:
        self._protocol = _PROTOCOL[family]
        self._netlink = netlink

    def rules(self, table: str, chain: str) -> list[Rule]:
        """Return a chain's rules in their order; one that does not exist has none."""
        request = netfilter(_GET_RULE, REQUEST | DUMP, self._protocol, _rules_of(table, chain))
        return [_rule(answer) for answer in _undisturbed(self._netlink, request)]


def supported() -> bool:
    """Say whether the kernel has nf_tables. Raises BackendError if it cannot be asked."""
    nothing = text_attribute(_TABLE_NAME, "kproxy-asks-for-no-table")
    with Netlink("asking for nf_tables") as netlink:
        netlink.send(netfilter(_GET_TABLE, REQUEST, _PROTOCOL[Family.IPV4], nothing))
        _, code = next(netlink.outcomes())
    return code != errno.EINVAL  # nfnetlink's word for a subsystem that does not exist


def has_table(family: Family, name: str) -> bool:
    """Say whether a table exists."""
    if not supported():
        return False
    with Netlink("listing nf_tables tables") as netlink:
        netlink.send(netfilter(_GET_TABLE, REQUEST | DUMP, _PROTOCOL[family]))
        tables = list(map(attributes, netlink.answers()))
    return any(text(table[_TABLE_NAME]) == name for table in tables)


def knows(family: Family, name: str, *, target: bool) -> bool:
    """Say whether iptables rules can have a match or a target, in whatever revision.

    Raises BackendError, also for a kernel that has nf_tables without the part for iptables.
    """
    wanted = text_attribute(_COMPAT_NAME, name)
    wanted += attribute(_COMPAT_REVISION, bytes(4))
    wanted += attribute(_COMPAT_TYPE, target.to_bytes(4, "big"))
    with Netlink(f"asking nf_tables for the extension {name}") as netlink:
        netlink.send(netfilter(_COMPAT_GET, REQUEST | ACK, _PROTOCOL[family], wanted))
        code = netlink.status()
        if code not in (0, errno.ENOENT, errno.EPROTONOSUPPORT):
            raise netlink.refusal(code)
    return code != errno.ENOENT


class Edit:
    """Removals within a family's tables, all or nothing.

    A rule is named by its handle, which no other rule of its table ever gets: what was read and
    has gone since is refused and never mistaken.
    """

    def __init__(self, family: Family, doing: str) -> None:
        self._protocol = _PROTOCOL[family]
        self._doing = doing
        self._requests: list[tuple[int, bytes]] = []

    def delete_rule(self, table: str, chain: str, rule: Rule) -> None:
        """Delete one rule."""
        self._requests.append((_DELETE_RULE, _rules_of(table, chain) + rule.handle))

    def flush(self, table: str, chain: str) -> None:
        """Delete all rules of a chain."""
        self._requests.append((_DELETE_RULE, _rules_of(table, chain)))

    def delete_chain(self, table: str, chain: str) -> None:
        """Delete a chain, to which nothing leads any more by then."""
        where = text_attribute(_CHAIN_TABLE, table) + text_attribute(_CHAIN_NAME, chain)
        self._requests.append((_DELETE_CHAIN, where))

    def delete_table(self, name: str) -> None:
        """Delete a table with all it holds."""
        self._requests.append((_DELETE_TABLE, text_attribute(_TABLE_NAME, name)))

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self._requests)

    def commit(self) -> None:
        """Do it, if there is anything to do, in one transaction. Raises BackendError."""
        if not self:
            return
        *_, last = range(len(self._requests))
        batch = b"".join(
            netfilter(kind, REQUEST | (ACK if number == last else 0), self._protocol, where)
            for number, (kind, where) in enumerate(self._requests)
        )
        begin = netfilter(_BATCH_BEGIN, REQUEST, 0, resource=_SUBSYSTEM >> 8)
        end = netfilter(_BATCH_END, REQUEST, 0, resource=_SUBSYSTEM >> 8)
        with Netlink(self._doing) as netlink:
            netlink.send(begin + batch + end)
            # A refusal comes before the answer to the last request.
            list(netlink.answers())


def delete_table(family: Family, name: str) -> None:
    """Delete a table with all it holds. Raises BackendError, also if there is none."""
    edit = Edit(family, f"deleting the nf_tables table {name}")
    edit.delete_table(name)
    edit.commit()


def _chains(protocol: int) -> list[bytes]:
    with Netlink("listing nf_tables chains") as netlink:
        return _undisturbed(netlink, netfilter(_GET_CHAIN, REQUEST | DUMP, protocol))


def _chain(chain: Attributes) -> Chain:
    entrance = None
    if _CHAIN_HOOK in chain:
        hook = attributes(chain[_CHAIN_HOOK])
        entrance = Entrance(
            int.from_bytes(hook[_HOOK_NUMBER], "big"),
            int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True),
            text(chain[_CHAIN_TYPE]),
        )
    uses = int.from_bytes(chain[_CHAIN_USE], "big")
    return Chain(text(chain[_CHAIN_TABLE]), text(chain[_CHAIN_NAME]), entrance, uses)


def _rules_of(table: str, chain: str) -> bytes:
    return text_attribute(_RULE_TABLE, table) + text_attribute(_RULE_CHAIN, chain)


def _undisturbed(netlink: Netlink, request: bytes) -> list[bytes]:
    """Return the answers of a dump during which nothing changed."""
    for _ in range(_DUMP_TRIES):
        netlink.send(request)
        answers = list(netlink.answers())
        if not netlink.interrupted:
            return answers
    raise BackendError("reading nf_tables", "others write to it without a pause", transient=True)


def _rule(answer: bytes) -> Rule:
    # Written out, because it runs for 140,000 rules: with `spans` it takes twice as long.
    at, handle = 0, b""
    while at < len(answer):
        length, kind = ATTRIBUTE.unpack_from(answer, at)
        if kind == _RULE_HANDLE:
            handle = answer[at : at + length]
        elif kind & TYPE_MASK == _RULE_EXPRESSIONS:
            return Rule(handle, answer[at:])
        at += length + 3 & ~3
    return Rule(handle, b"")
