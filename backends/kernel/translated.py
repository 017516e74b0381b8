"""Tracked connections: waiting until those of today have ended, of all or of some addresses.

Messages and attributes: linux/netfilter/nfnetlink_conntrack.h; the status is that of
linux/netfilter/nf_conntrack_common.h.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Collection, Generator
from pathlib import Path

from backends.kernel.netlink import (
    AF,
    DUMP,
    REQUEST,
    Netlink,
    attribute,
    attributes,
    netfilter,
    spans,
)
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_GET = 0x101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_ORIGINAL, _REPLY, _STATUS, _ID, _STATUS_MASK = 1, 2, 3, 12, 26
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCE_PORT, _DESTINATION_PORT = 2, 3
_SOURCE = {Family.IPV4: 1, Family.IPV6: 3}
_DESTINATION = {Family.IPV4: 2, Family.IPV6: 4}
_DESTINATION_TRANSLATED = 1 << 5  # IPS_DST_NAT

# The file exists only where the kernel's ipvs does.
_IP_VS = Path("/proc/thread-self/net/ip_vs")

AT_ONCE = 5000  # entries in a look: 25 ms


Entries = Callable[[Family], Generator[int | None, None, bool]]
"""Yields the id of each entry that counts, None for others; returns if the table was disturbed."""


def to_any_of(addresses: Collection[bytes]) -> Entries:
    """Return what yields the entries that were opened to one of these addresses, packed."""

    def entries(family: Family) -> Generator[int | None, None, bool]:
        with Netlink("listing connections") as netlink:
            netlink.send(netfilter(_GET, REQUEST | DUMP, AF[family]))
            for data, start, end in netlink.parts():
                found = attributes(data[start:end])
                place = attributes(attributes(found[_ORIGINAL])[_TUPLE_IP])
                counts = place.get(_DESTINATION[family]) in addresses
                yield int.from_bytes(found[_ID], "big") if counts else None
            return netlink.interrupted

    return entries


def translated(family: Family) -> Generator[int | None, None, bool]:
    """Yield the entries whose destination is translated by rules, whoever made those.

    Kernels before 5.15 do not know the filter and show every entry.
    """
    status = _DESTINATION_TRANSLATED.to_bytes(4, "big")
    wanted = attribute(_STATUS, status) + attribute(_STATUS_MASK, status)
    with Netlink("listing translated connections") as netlink:
        netlink.send(netfilter(_GET, REQUEST | DUMP, AF[family], wanted))
        for data, start, end in netlink.parts():
            yield _translated(data, start, end)
        return netlink.interrupted


def served_elsewhere(family: Family) -> Generator[int | None, None, bool]:
    """Yield the entries whose destination is translated by rules or by ipvs, whoever made those.

    What ipvs translates has no status that says so: another address answers than was asked.
    """
    if not _IP_VS.exists():
        return (yield from translated(family))
    with Netlink("listing translated connections") as netlink:
        netlink.send(netfilter(_GET, REQUEST | DUMP, AF[family]))
        for data, start, end in netlink.parts():
            found = attributes(data[start:end])
            asked = _end(found[_ORIGINAL], _DESTINATION[family], _DESTINATION_PORT)
            elsewhere = asked != _end(found[_REPLY], _SOURCE[family], _SOURCE_PORT)
            status = int.from_bytes(found.get(_STATUS, b""), "big")
            counts = elsewhere or status & _DESTINATION_TRANSLATED
            yield int.from_bytes(found[_ID], "big") if counts else None
        return netlink.interrupted


class Departing:
    """Tells when the connections of a family that exist at the first sight have ended.

    Later ones look the same and do not count. Four bytes are kept for each.
    """

    def __init__(self, family: Family, entries: Entries = translated) -> None:
        self._family = family
        self._entries = entries
        self._awaited: array[int] | None = None  # sorted; None: not all were seen yet
        self._sweep: Generator[int | None, None, bool] | None = None
        self._found: array[int] = array("I")

    def ended(self) -> bool:
        """Look at some thousand entries, from where the last look ended; say whether none is left.

        Raises BackendError; the next look begins from the start.
        """
        if self._sweep is None:
            self._sweep = self._entries(self._family)
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


def _translated(data: bytes, start: int, end: int) -> int | None:
    """Return the id of the entry whose attributes lie between two places, if it is translated."""
    status = entry = 0
    for kind, first, last in spans(data, start, end):
        if kind == _STATUS:
            status = int.from_bytes(data[first:last], "big")
        elif kind == _ID:
            entry = int.from_bytes(data[first:last], "big")
    return entry if status & _DESTINATION_TRANSLATED else None


def _end(of: bytes, address: int, port: int) -> tuple[bytes | None, bytes | None]:
    """Return address and port at one end of a tuple, None for what it does not have."""
    parts = attributes(of)
    place, protocol = (attributes(parts.get(each, b"")) for each in (_TUPLE_IP, _TUPLE_PROTOCOL))
    return place.get(address), protocol.get(port)
