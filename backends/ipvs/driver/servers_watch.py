"""Noticing that others changed virtual servers of ours: the kernel tells nobody when they do.

What it prints of them in /proc is compared with what it printed some seconds before. Layout:
ip_vs_info_seq_show in net/netfilter/ipvs/ip_vs_ctl.c of the kernel.

Where other network namespaces have virtual servers too, it leaves out some of ours: it goes through
those of all, a page at a time, and looks for the next page's first by its number among ours alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from backends.ipvs.render.entries import marked_bytes
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_PRINTED = Path("/proc/thread-self/net/ip_vs")
_BLOCK = re.compile(rb"^(TCP|UDP|SCTP|FWM)  (\S+) (.*\n(?:  -> .*\n)*)", re.MULTILINE)
_CONNECTIONS = re.compile(rb" +\d+ +\d+ *$", re.MULTILINE)  # of each destination
_NUMBERS = {b"TCP": 6, b"UDP": 17, b"SCTP": 132}
_LOOK_EVERY_S = 2.5  # 100,000 destinations take 0.1 s


class Seen(NamedTuple):
    """Digests of what the kernel said last of a virtual server, None where it said nothing."""

    printed: int | None = None
    told: int | None = None

    def is_unlike(self, later: Seen) -> bool:
        """Say whether it was altered meanwhile."""
        pairs = zip(self, later, strict=True)
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


_NOTHING = Seen()

Digests = Mapping[bytes, int | None]
"""Of each virtual server that is there one of all but its connections, None if it was not read."""


class ServersWatch:
    """The virtual servers of one family, each known by its key's bytes.

    `ask` asks the kernel for them in another way, where it does not print all. `reading` and
    `disturbed` may raise BackendError.
    """

    def __init__(
        self,
        family: Family,
        ask: Callable[[Collection[bytes]], Digests],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = family
        self._ask = ask
        self._clock = clock
        self._seen: dict[bytes, Seen] = {}
        self._touched: set[bytes] = set()
        self._next_at = 0.0

    def reading(self) -> None:
        """Note that they are about to be read."""
        self._seen = {}
        self._look()

    def told(self, digests: Digests) -> None:
        """Note what was read, with digests as of `ask`."""
        for server, digest in digests.items():
            self._seen[server] = self._last(server)._replace(told=digest)

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
        for server in self._touched:
            self._seen.pop(server, None)
        before = self._seen
        self._look()
        return any(
            server not in self._seen or before[server].is_unlike(self._seen[server])
            for server in ours
            if server in before
        )

    def sees(self, server: bytes) -> bool:
        """Say whether one at an address was there when it looked last, whoever made it."""
        return server in self._seen

    def _look(self) -> None:
        try:
            text = _PRINTED.read_bytes()
        except OSError as error:
            doing = f"reading {_PRINTED}"
            raise BackendError(doing, error.strerror or str(error), transient=False) from error
        printed = _parsed(self._family, text)
        known = self._seen.keys() | printed.keys()
        # Any of them may be left out the next time, so all are asked for.
        told = self._ask(known) if self._some_are_left_out(printed) else {}
        self._seen = {
            each: Seen(
                printed.get(each, self._last(each).printed), told.get(each, self._last(each).told)
            )
            for each in printed.keys() | told.keys()
        }
        self._touched = set()
        self._next_at = self._clock() + _LOOK_EVERY_S

    def _some_are_left_out(self, printed: Collection[bytes]) -> bool:
        """Say whether there are some that are not printed now, or were not before."""
        return any(each not in printed or was.printed is None for each, was in self._seen.items())

    def _last(self, server: bytes) -> Seen:
        return self._seen.get(server, _NOTHING)


def _parsed(family: Family, text: bytes) -> dict[bytes, int]:
    """Return a digest of all that is printed of each virtual server but its connections.

    The family of one of a mark shows in its destinations alone: without any, it is of both.
    """
    found: dict[bytes, int] = {}
    for kind, place, rest in _BLOCK.findall(text):
        if kind == b"FWM":
            server = marked_bytes(int(place, 16))
            if b"  -> " not in rest:
                found.setdefault(server, hash(rest))
                continue
            v6 = b"  -> [" in rest
        else:
            v6 = place.startswith(b"[")
            server = bytes([_NUMBERS[kind]]) + bytes.fromhex(place.translate(None, b"[]:").decode())
        if v6 is (family is Family.IPV6):
            # The first line may end in two numbers too: those of its persistence.
            own, _, behind = rest.partition(b"\n")
            found[server] = hash((own, _CONNECTIONS.sub(b"", behind)))
    return found
