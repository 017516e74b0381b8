"""Packet counters that outlive the rules which feed them: the kernel's nfacct objects.

A rule's own counter begins anew when its chain is written, and reading one in the legacy variant
copies the whole table. These hold across both, restarts of ours included. Layouts:
linux/netfilter/nfnetlink_acct.h.
"""

from __future__ import annotations

import errno
import os
import time

from backends.iptables.render.rules import ACCOUNTS, Account, account_name
from backends.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REQUEST,
    Netlink,
    attributes,
    netfilter,
    text_attribute,
)
from backends.kernel.xtables.wording import chain_key
from kproxy.core.addresses import Family

_SUBSYSTEM = 7 << 8  # NFNL_SUBSYS_ACCT
_NEW, _GET, _DELETE = (_SUBSYSTEM | number for number in (0, 1, 3))
_NAME, _PACKETS = 1, 2  # NFACCT_*

FEEDING = frozenset({chain_key("filter", "KPROXY-FORWARD"), chain_key("nat", "KPROXY-MASQUERADE")})
"""The chains whose rules may refer to the objects."""

# Done; not there; in use; and a kernel without such objects.
_NOTHING_TO_REMOVE = (0, errno.ENOENT, errno.EBUSY, errno.EINVAL)

# nf_tables lets go of a deleted rule's object only after all CPUs have left the old ruleset.
_RELEASE_TRIES = 50
_RELEASE_PAUSE_S = 0.01


def why_unusable() -> str:
    """Return why the kernel has no such objects, "" if it can have them. Makes none."""
    with Netlink("asking for packet counters") as netlink:
        netlink.send(netfilter(_GET, REQUEST | DUMP, 0))
        code = netlink.status()
    return f"the kernel lacks nfacct objects: {os.strerror(code)}" if code else ""


def ensure(family: Family) -> None:
    """Make the objects exist; those that do keep their counts. Raises BackendError."""
    doing = "creating packet counters"
    with Netlink(doing) as netlink:
        for code in _ask(netlink, family, _NEW, CREATE | EXCLUSIVE):
            if code not in (0, errno.EEXIST):
                raise netlink.refusal(code)


def remove(family: Family) -> int:
    """Remove the objects, but those that a rule refers to; return how many. Raises BackendError."""
    removed = 0
    with Netlink("removing packet counters") as netlink:
        for attempt in range(_RELEASE_TRIES):
            if attempt:
                time.sleep(_RELEASE_PAUSE_S)
            codes = _ask(netlink, family, _DELETE)
            removed += codes.count(0)
            if errno.EBUSY not in codes:
                break
        for code in codes:
            if code not in _NOTHING_TO_REMOVE:
                raise netlink.refusal(code)
    return removed


def packets(family: Family) -> dict[Account, int]:
    """Return how many packets each object has counted. Raises BackendError."""
    counts: dict[Account, int] = {}
    with Netlink("reading packet counters") as netlink:
        for account in ACCOUNTS[family]:
            wanted = text_attribute(_NAME, account_name(family, account))
            netlink.send(netfilter(_GET, REQUEST, 0, wanted))
            counts[account] = int.from_bytes(attributes(next(netlink.answers()))[_PACKETS], "big")
    return counts


def _ask(netlink: Netlink, family: Family, kind: int, flags: int = 0) -> list[int]:
    """Ask the same for each object; return the error numbers, 0 for success."""
    names = [text_attribute(_NAME, account_name(family, each)) for each in ACCOUNTS[family]]
    netlink.send(b"".join(netfilter(kind, REQUEST | ACK | flags, 0, name) for name in names))
    return netlink.statuses(len(names))
