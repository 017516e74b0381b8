"""What is asked of nf_tables directly, over netlink.

Layouts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from backends.kernel.netlink import (
    ACK,
    ATTRIBUTE,
    DUMP,
    REQUEST,
    TYPE_MASK,
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
_GET_TABLE, _DELETE_TABLE, _GET_CHAIN, _GET_RULE, _GET_GENERATION = (
    _SUBSYSTEM | number for number in (1, 2, 4, 7, 16)
)
_BATCH_BEGIN, _BATCH_END = 16, 17
_COMPAT_GET = 11 << 8  # NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET
_COMPAT_NAME, _COMPAT_REVISION, _COMPAT_TYPE = 1, 2, 3  # NFTA_COMPAT_*; type 0 is a match
_GENERATION_ID = 1  # NFTA_GEN_ID
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK = 1, 3, 4  # NFTA_CHAIN_*
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4  # NFTA_RULE_*
FAMILY_NAME = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_PROTOCOL = {Family.IPV4: 2, Family.IPV6: 10}  # NFPROTO_*

_DUMP_TRIES = 10  # of a listing that others disturb; one of 20,000 chains takes 30 ms


class Chain(NamedTuple):
    """A chain; `base` says that packets enter it by themselves."""

    table: str
    name: str
    base: bool


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


def chains_digest(family: Family, prefix: str) -> bytes:
    """Return a digest of the handles and use counts of chains whose names begin with a prefix.

    A chain's use counts its rules and the jumps to it, so one rule more or less shows in it, and
    a chain that was deleted and made again has another handle. Nothing else of a chain changes.
    """
    ours = f"\0{prefix}".encode()
    digest = hashlib.blake2b(digest_size=8)
    for chain in _chains(family):
        if ours in chain:
            digest.update(chain)
    return digest.digest()


def chains(family: Family) -> list[Chain]:
    """Return all chains of a family."""
    found = []
    for chain in map(attributes, _chains(family)):
        base = _CHAIN_HOOK in chain
        found.append(Chain(text(chain[_CHAIN_TABLE]), text(chain[_CHAIN_NAME]), base))
    return found


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
        where = text_attribute(_RULE_TABLE, table) + text_attribute(_RULE_CHAIN, chain)
        request = netfilter(_GET_RULE, REQUEST | DUMP, self._protocol, where)
        return [_rule(answer) for answer in _undisturbed(self._netlink, request)]


def has_table(family: Family, name: str) -> bool:
    """Say whether a table exists."""
    with Netlink("listing nf_tables tables") as netlink:
        netlink.send(netfilter(_GET_TABLE, REQUEST | DUMP, _PROTOCOL[family]))
        tables = list(map(attributes, netlink.answers()))
    return any(text(table[_TABLE_NAME]) == name for table in tables)


def require_match(family: Family, name: str) -> None:
    """Raise BackendError unless iptables rules can have a match, in its first revision."""
    wanted = text_attribute(_COMPAT_NAME, name)
    wanted += attribute(_COMPAT_REVISION, bytes(4)) + attribute(_COMPAT_TYPE, bytes(4))
    with Netlink(f"asking nf_tables for the match {name}") as netlink:
        netlink.send(netfilter(_COMPAT_GET, REQUEST, _PROTOCOL[family], wanted))
        next(netlink.answers())


def tables_with_chains(family: Family, prefix: str) -> set[str]:
    """Return the tables that hold a chain whose name begins with a prefix."""
    return {chain.table for chain in chains(family) if chain.name.startswith(prefix)}


def delete_table(family: Family, name: str) -> None:
    """Delete a table with all it holds. Raises BackendError, also if there is none."""
    where = text_attribute(_TABLE_NAME, name)
    batch = (
        netfilter(_BATCH_BEGIN, REQUEST, 0, resource=_SUBSYSTEM >> 8)
        + netfilter(_DELETE_TABLE, REQUEST | ACK, _PROTOCOL[family], where)
        + netfilter(_BATCH_END, REQUEST, 0, resource=_SUBSYSTEM >> 8)
    )
    with Netlink(f"deleting the nf_tables table {name}") as netlink:
        netlink.send(batch)
        list(netlink.answers())


def _chains(family: Family) -> list[bytes]:
    with Netlink("listing nf_tables chains") as netlink:
        return _undisturbed(netlink, netfilter(_GET_CHAIN, REQUEST | DUMP, _PROTOCOL[family]))


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
