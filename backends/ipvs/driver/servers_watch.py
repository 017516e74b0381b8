"""Noticing that others changed virtual servers of ours: the kernel tells nobody when they do.

What it prints of them in /proc is compared with what it printed some seconds before. Layout:
ip_vs_info_seq_show in net/netfilter/ipvs/ip_vs_ctl.c of the kernel.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from backends.ipvs.render.entries import marked_bytes
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_PRINTED = Path("/proc/thread-self/net/ip_vs")
_BLOCK = re.compile(rb"^(TCP|UDP|SCTP|FWM)  (\S+) (.*\n(?:  -> .*\n)*)", re.MULTILINE)
_CONNECTIONS = re.compile(rb" +\d+ +\d+ *$", re.MULTILINE)  # of each destination
_NUMBERS = {b"TCP": 6, b"UDP": 17, b"SCTP": 132}
_LOOK_EVERY_S = 2.5  # 100,000 destinations take 0.1 s


class ServersWatch:
    """The virtual servers of one family, each known by its key's bytes.

    Any call but `touched` may raise BackendError.
    """

    def __init__(self, family: Family, clock: Callable[[], float] = time.monotonic) -> None:
        self._family = family
        self._clock = clock
        self._seen: dict[bytes, int] = {}
        self._touched: set[bytes] = set()
        self._next_at = 0.0

    def reading(self) -> None:
        """Note that they are about to be read."""
        self._look()

    def touched(self, servers: Iterable[bytes]) -> None:
        """Note that these are being changed by ourselves."""
        self._touched.update(servers)

    def disturbed(self, ours: Collection[bytes]) -> bool:
        """Say whether others changed any of ours since the last look; looks every few seconds.

        What we changed ourselves meanwhile is left out, and with it whatever others did to the
        same servers in these seconds: the next full reading finds that.
        """
        if self._clock() < self._next_at:
            return False
        before, touched = self._seen, self._touched
        self._look()
        return any(
            before.get(server) != self._seen.get(server) for server in ours if server not in touched
        )

    def sees(self, server: bytes) -> bool:
        """Say whether one at an address was there when it looked last, whoever made it."""
        return server in self._seen

    def _look(self) -> None:
        try:
            printed = _PRINTED.read_bytes()
        except OSError as error:
            doing = f"reading {_PRINTED}"
            raise BackendError(doing, error.strerror or str(error), transient=False) from error
        self._touched = set()
        self._seen = dict(_parsed(self._family, printed))
        self._next_at = self._clock() + _LOOK_EVERY_S


def _parsed(family: Family, printed: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield a digest of all that is printed of each virtual server but its connections."""
    for kind, place, rest in _BLOCK.findall(printed):
        if kind == b"FWM":
            # The family shows in its destinations alone.
            v6 = b"  -> [" in rest
            server = marked_bytes(int(place, 16))
            if b"  -> " not in rest:
                continue
        else:
            v6 = place.startswith(b"[")
            server = bytes([_NUMBERS[kind]]) + bytes.fromhex(place.translate(None, b"[]:").decode())
        if v6 is (family is Family.IPV6):
            # The first line may end in two numbers too: those of its persistence.
            own, _, behind = rest.partition(b"\n")
            yield server, hash((own, _CONNECTIONS.sub(b"", behind)))
