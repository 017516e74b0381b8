"""Which firewall mark a service port has. Pure.

The kernel compares the whole mark of a packet, so a virtual server of a mark needs one of its own.
The two highest bits are ours: both are set in the mark of a virtual server, and the lower one alone
in that of a packet which has to come to the node for a virtual server at an address.
Names are a stranger's choice: marks that are digests of them can be made to meet. They are kept as
in an ordered hash table (Amble and Knuth 1974): of those that want the same mark the first by name
has it, the others the next free ones. So the result depends on the names alone, not on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePortKey

FIRST_MARK = OUR_BITS = 0xC0000000
"""Others use the lower bits, as a rule."""

STEERED = 0x40000000
"""The bit that leads a packet to our link, where its address is none of the node's."""

_COUNT = 1 << 29  # of those of UDP, which come behind, and of the rest


class Marks:
    """The marks of one family's service ports."""

    def __init__(self) -> None:
        self._slots: dict[int, ServicePortKey] = {}
        self._of: dict[ServicePortKey, int] = {}

    def get(self, key: ServicePortKey) -> int | None:
        """Return the mark of a service port, None if it has none."""
        slot = self._of.get(key)
        return None if slot is None else FIRST_MARK + slot

    def owner(self, mark: int) -> ServicePortKey | None:
        """Return the service port that has a mark, None if none has."""
        return self._slots.get(mark - FIRST_MARK)

    def __contains__(self, key: ServicePortKey) -> bool:
        return key in self._of

    def replace(
        self, gone: Iterable[ServicePortKey], new: Iterable[ServicePortKey]
    ) -> Mapping[ServicePortKey, int | None]:
        """Take marks away and give some; return what those had whose mark is another now."""
        before: dict[ServicePortKey, int | None] = {}
        for key in gone:
            self._remove(key, before)
        for key in new:
            before.setdefault(key, None)
            self._insert(key, before)
        return {
            key: None if slot is None else FIRST_MARK + slot
            for key, slot in before.items()
            if self._of.get(key) != slot
        }

    def _insert(self, key: ServicePortKey, before: dict[ServicePortKey, int | None]) -> None:
        slot = _wanted(key)
        while (occupant := self._slots.get(slot)) is not None:
            if _order(key) < _order(occupant):
                before.setdefault(occupant, slot)
                self._place(slot, key)
                key = occupant
            slot = _after(slot)
        self._place(slot, key)

    def _remove(self, key: ServicePortKey, before: dict[ServicePortKey, int | None]) -> None:
        slot = self._of.pop(key)
        before.setdefault(key, slot)
        del self._slots[slot]
        # What stands behind it may have been pushed there by it.
        following: list[ServicePortKey] = []
        while (occupant := self._slots.pop(slot := _after(slot), None)) is not None:
            before.setdefault(occupant, self._of.pop(occupant))
            following.append(occupant)
        for each in following:
            self._insert(each, before)

    def _place(self, slot: int, key: ServicePortKey) -> None:
        self._slots[slot] = key
        self._of[key] = slot


def is_ours(mark: int) -> bool:
    """Say whether a mark can be that of a service port."""
    return mark & OUR_BITS == OUR_BITS


def is_of_udp(mark: int) -> bool:
    """Say whether a mark of ours is that of a UDP service port: the kernel does not know."""
    return mark - FIRST_MARK >= _COUNT


def _order(key: ServicePortKey) -> tuple[str, ...]:
    return key.namespace, key.name, key.port, key.protocol.value


def _wanted(key: ServicePortKey) -> int:
    digest = hashlib.sha256("\0".join(_order(key)).encode()).digest()
    first = _COUNT if key.protocol is Protocol.UDP else 0
    return first + int.from_bytes(digest[:4], "big") % _COUNT


def _after(slot: int) -> int:
    """Return the next slot for the same protocols."""
    first = slot // _COUNT * _COUNT
    return first + (slot - first + 1) % _COUNT
