"""Reading one table by the way that suits it."""

from __future__ import annotations

import enum

from backends.iptables import in_process, legacy, rulesets, saved, tools
from backends.iptables.saved import Seen
from backends.iptables.tools import Variant
from kproxy.core.addresses import Family

# Up to here python-iptables is faster than a child process (3.3 µs an entry against 3 ms to start
# and 1.7 µs an entry); above, the child is, and its memory goes when it ends.
_SMALL_TABLE_ENTRIES = 2000


class Reader(enum.Enum):
    """How a table is read. The answers are the same, except for the hashes of text."""

    IN_PROCESS = "python-iptables"
    SAVE = "iptables-save"


def reader(family: Family, variant: Variant, table: str) -> Reader | None:
    """Return how to read a table, None if it does not exist."""
    if variant is Variant.NF_TABLES:
        return Reader.SAVE
    size = legacy.info(family, table)
    if size is None:
        return None
    return Reader.IN_PROCESS if size.entries <= _SMALL_TABLE_ENTRIES else Reader.SAVE


def read(how: Reader, family: Family, variant: Variant, table: str) -> Seen:
    """Return what is ours in a table that exists. Raises BackendError."""
    if how is Reader.IN_PROCESS:
        return in_process.read(family, table)
    try:
        return saved.parse(table, tools.save(family, variant, table))
    except saved.Unreadable as unreadable:
        raise rulesets.unreadable(family, table, str(unreadable)) from unreadable
