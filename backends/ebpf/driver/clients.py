"""Which clients have flows, so that the programs pass what others send straight to endpoints.

ebpf/include/kproxy/claims.h says what is in the map, and what the programs make of it.
"""

from __future__ import annotations

import struct

from backends.ebpf.driver.claims import hashes
from backends.ebpf.driver.flow_layout import Layout
from backends.kernel.bpf.maps import Map

_ROUND = 65536  # where the number of the round is, behind a word for each hash
_INDEX = struct.Struct("=I")
_NUMBER = struct.Struct("=Q")


class Clients:
    """The clients of one family, as a round through all of its flows meets them.

    Programs write to the map as well, but the same or the number before, which is as good.
    """

    def __init__(self, clients: Map) -> None:
        self._map = clients
        self._met: set[bytes] = set()

    def meet(self, layout: Layout, values: bytearray) -> None:
        """Take in the clients of some flows."""
        self._met.update(layout.clients(values))

    def end_round(self) -> None:
        """Let the programs forget whom this round and the last did not meet. Raises BackendError.

        Not before every flow that there was throughout the round has been met.
        """
        last = _INDEX.pack(_ROUND)
        value = self._map.lookup(last)
        following = _NUMBER.pack(_NUMBER.unpack(value)[0] + 1 if value else 0)
        slots = {_INDEX.pack(hash_ >> 16): following for hash_ in hashes(self._met)}
        self._map.update_many(slots)
        self._map.update(last, following)
        self._met.clear()
