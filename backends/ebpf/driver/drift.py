"""Noticing what others did to our links and maps, of which the kernel tells nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from backends.ebpf.driver.attach import Attacher

_PERIOD_S = 1.0
_SHARES = 3  # of the devices, one a period: each is looked at every three seconds


class Drift:
    """Looks at a share of all devices each second. `clock` counts seconds.

    Filters and qdiscs are not looked at: netlink tells of them at once.
    """

    def __init__(self, attacher: Attacher, clock: Callable[[], float]) -> None:
        self._attacher = attacher
        self._clock = clock
        self._next_s = clock() + _PERIOD_S
        self._turn = 0

    def due(self) -> bool:
        """Say whether to look now; True once a second."""
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + _PERIOD_S
        self._turn = (self._turn + 1) % _SHARES
        return True

    def around(self) -> bool:
        """Say whether all shares have been looked at since this was last true."""
        return self._turn == 0

    def disturbed(self, devices: Sequence[int]) -> Iterator[int]:
        """Yield which devices of the present share are not as we left them.

        Raises BackendError.
        """
        return filter(self._attacher.disturbed, devices[self._turn :: _SHARES])
