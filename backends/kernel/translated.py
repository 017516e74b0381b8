"""Connections whose destination the kernel translates: waiting until those of today have ended.

Messages and attributes: linux/netfilter/nfnetlink_conntrack.h; the status is that of
linux/netfilter/nf_conntrack_common.h.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Generator

from backends.kernel.netlink import AF, DUMP, REQUEST, Netlink, attribute, netfilter, spans
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_GET = 0x101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_STATUS, _ID, _STATUS_MASK = 3, 12, 26
_DESTINATION_TRANSLATED = 1 << 5  # IPS_DST_NAT

AT_ONCE = 5000  # entries in a look: 25 ms


class Departing:
    """Tells when the translated connections of a family that exist at the first sight have ended.

    Later ones look the same and do not count. The kernel cannot say who translated a connection,
    so that somebody else's count as well. Four bytes are kept for each.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._awaited: array[int] | None = None  # sorted; None: not all were seen yet
        self._sweep: Generator[int | None, None, bool] | None = None
        self._found: array[int] = array("I")

    def ended(self) -> bool:
        """Look at some thousand entries, from where the last look ended; say whether none is left.

        Raises BackendError; the next look begins from the start.
        """
        if self._sweep is None:
            self._sweep = _entries(self._family)
            self._found = array("I")
        try:
            for _ in range(AT_ONCE):
                entry = next(self._sweep)
                if entry is not None and self._is_awaited(entry):
                    self._found.append(entry)
        except StopIteration as end:
            self._sweep = None
            return self._swept(disturbed=end.value)
        except BackendError:
            self._sweep = None
            raise
        return False

    def _is_awaited(self, entry: int) -> bool:
        if self._awaited is None:
            return True
        at = bisect.bisect_left(self._awaited, entry)
        return at < len(self._awaited) and self._awaited[at] == entry

    def _swept(self, *, disturbed: bool) -> bool:
        if disturbed:  # something may have been passed over
            return False
        self._awaited = array("I", sorted(self._found))
        return not self._awaited


def _entries(family: Family) -> Generator[int | None, None, bool]:
    """Yield the id of each translated entry, None for others; return if the table was disturbed.

    Kernels before 5.15 do not know the filter and show every entry.
    """
    translated = _DESTINATION_TRANSLATED.to_bytes(4, "big")
    wanted = attribute(_STATUS, translated) + attribute(_STATUS_MASK, translated)
    with Netlink("listing translated connections") as netlink:
        netlink.send(netfilter(_GET, REQUEST | DUMP, AF[family], wanted))
        for data, start, end in netlink.parts():
            yield _translated(data, start, end)
        return netlink.interrupted


def _translated(data: bytes, start: int, end: int) -> int | None:
    """Return the id of the entry whose attributes lie between two places, if it is translated."""
    status = entry = 0
    for kind, first, last in spans(data, start, end):
        if kind == _STATUS:
            status = int.from_bytes(data[first:last], "big")
        elif kind == _ID:
            entry = int.from_bytes(data[first:last], "big")
    return entry if status & _DESTINATION_TRANSLATED else None
