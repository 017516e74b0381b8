"""Rules of policy routing that lead packets of a mark to a table. Layout: linux/fib_rules.h."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from backends.kernel.netlink import (
    AF,
    CREATE,
    EXCLUSIVE,
    NetlinkRefusal,
    attribute,
    attributes,
)
from backends.kernel.route_netlink import Event, Kind, RouteWriter, listed
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

REMEDY = "boot a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"

_NEW, _DELETE, _GET = 32, 33, 34  # RTM_*RULE
_HEADER = struct.Struct("=8BI")  # struct fib_rule_hdr; two of its bytes are unused
_ACTION_AT = 7
_INVERTED = 0x2  # FIB_RULE_INVERT
_TO_TABLE = 1  # FR_ACT_TO_TBL
_PRIORITY, _MARK, _TABLE, _MASK, _PROTOCOL = 6, 10, 15, 16, 21  # FRA_*
_SUPPRESSED_LENGTH = 14  # FRA_SUPPRESS_PREFIXLEN, which the kernel tells of every rule
_USUAL = {_PRIORITY, _MARK, _MASK, _TABLE, _PROTOCOL, _SUPPRESSED_LENGTH}
_NOT_THERE = errno.ENOENT
_IMPOSSIBLE = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)  # for this family, for any


class Rule(NamedTuple):
    """A rule; `rest` is what else it asks for, as bytes: empty in one of ours."""

    priority: int
    mark: int
    mask: int
    table: int
    rest: bytes = b""


def are_possible(family: Family) -> bool:
    """Say whether the kernel chooses a routing table by rules. Raises BackendError."""
    try:
        rules_to(family, 0)
    except NetlinkRefusal as refused:
        if refused.number not in _IMPOSSIBLE:
            raise
        return False
    return True


def require(family: Family) -> None:
    """Raise BackendError, with what helps, if the kernel knows no such rules."""
    if not are_possible(family):
        doing = f"asking for {family.value} routing rules"
        raise BackendError(doing, f"the kernel has none; {REMEDY}", transient=False)


def rules_to(family: Family, table: int) -> list[Rule]:
    """Return the rules that lead to a table. Raises BackendError."""
    doing = f"listing the {family.value} routing rules"
    request = _HEADER.pack(AF[family], *(0,) * 8)
    found = [_parsed(body) for body in listed(doing, _GET, request, strict=False)]
    return [rule for rule in found if rule.table == table]


def put(writer: RouteWriter, family: Family, rule: Rule, *, protocol: int) -> None:
    """Make a rule; the same one that is there stays. Raises BackendError."""
    body = _body(family, rule) + attribute(_PROTOCOL, bytes([protocol]))
    for code in writer.ask(_NEW, CREATE | EXCLUSIVE, [body]):
        if code != errno.EEXIST:
            raise writer.refusal(code)


def delete(writer: RouteWriter, family: Family, rules: Iterable[Rule]) -> None:
    """Remove rules, as far as they are there. Raises BackendError."""
    for code in writer.ask(_DELETE, 0, [_body(family, rule) for rule in rules]):
        if code != _NOT_THERE:
            raise writer.refusal(code)


def is_about(event: Event, table: int) -> bool:
    """Say whether a message tells of a rule that leads to a table."""
    if event.kind not in (Kind.NEW_RULE, Kind.DELETED_RULE):
        return False
    return _parsed(event.body).table == table


def _body(family: Family, rule: Rule) -> bytes:
    return (
        _HEADER.pack(AF[family], *(0,) * 6, _TO_TABLE, 0)
        + _word(_PRIORITY, rule.priority)
        + _word(_MARK, rule.mark)
        + _word(_MASK, rule.mask)
        + _word(_TABLE, rule.table)
    )


def _parsed(body: bytes) -> Rule:
    found = attributes(body[_HEADER.size :])
    *_, flags = _HEADER.unpack_from(body)
    usual = body[1:4] == bytes(3) and body[_ACTION_AT] == _TO_TABLE and not flags & _INVERTED
    more = (content for kind, content in sorted(found.items()) if kind not in _USUAL)
    return Rule(
        priority=_number(found.get(_PRIORITY)),
        mark=_number(found.get(_MARK)),
        mask=_number(found.get(_MASK)),
        table=_number(found.get(_TABLE)),
        rest=b"".join((b"" if usual else body[: _HEADER.size], *more)),
    )


def _number(content: bytes | None) -> int:
    return int.from_bytes(content or b"", sys.byteorder)


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, sys.byteorder))
