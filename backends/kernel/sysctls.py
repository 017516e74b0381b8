"""Settings of the node as kernel objects: wanted, observed and put right like rules.

Forwarding is wanted always and never given back: the container network and kubelet rely on it
too, and nobody can tell who turned it on. route_localnet is wanted while NodePorts are served on
IPv4 loopback, and counts as ours only beside our guard: others may have it on for themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from backends.kernel import sysctl
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_ON = b"1"


class Sysctls:
    """The settings of one family. `key_of` names one in the image, by what sysctl(8) calls it."""

    def __init__(self, family: Family, key_of: Callable[[str], Key]) -> None:
        self._family = family
        self.forwarding = key_of(sysctl.forwarding_name(family))
        self.localnet = key_of(sysctl.localnet_name())
        self._wanted: dict[Key, bytes] = {}
        self._held: set[Key] = set()  # as last observed or written
        self._refused: set[Key] = set()  # wanted, and not to be had so far

    def render(self, *, localhost: bool) -> dict[Key, bytes | None]:
        """Return the image entries that differ from those of the last call, None where gone."""
        before = self._wanted
        self._wanted = {self.forwarding: _ON}
        if localhost:
            self._wanted[self.localnet] = _ON
        gone: dict[Key, bytes | None] = dict.fromkeys(before.keys() - self._wanted)
        return gone | {key: value for key, value in self._wanted.items() if key not in before}

    def observe(self, *, guarded: bool) -> dict[Key, bytes]:
        """Return the image of what is turned on; `guarded` says that our guard stands."""
        may_be_ours = {self.forwarding}
        if guarded or self.localnet in self._held:
            may_be_ours.add(self.localnet)
        self._held = set(filter(self._is_on, may_be_ours))
        self._refused -= self._held
        return dict.fromkeys(self._held | self._refused, _ON)

    def disturbed(self) -> bool:
        """Say whether others turned something off since we last looked."""
        return not all(map(self._is_on, self._held))

    def forward(self) -> None:
        """Turn forwarding on; if that is refused, `settle` tries again."""
        self._turn_on(self.forwarding)

    def open_localnet(self) -> None:
        """Turn route_localnet on; the guard must stand. If it is refused, `settle` tries again."""
        self._turn_on(self.localnet)

    def localnet_closed(self) -> None:
        """Note that route_localnet is not wanted any more, and off unless somebody else needs it.

        The guard must still stand while it is turned off.
        """
        self._held.discard(self.localnet)
        self._refused.discard(self.localnet)

    def settle(self) -> None:
        """Try again what was refused. Raises BackendError.

        In a container /proc/sys cannot be written, and the rules do most of their work all the
        same: they must not wait for a setting that somebody else has to make.
        """
        for key in sorted(self._refused):
            self._set(key)
            self._refused.discard(key)

    def _turn_on(self, key: Key) -> None:
        try:
            self._set(key)
        except BackendError:
            self._refused.add(key)

    def _set(self, key: Key) -> None:
        if key == self.localnet:
            sysctl.route_localnet("1")
        else:
            sysctl.forward(self._family)
        self._held.add(key)

    def _is_on(self, key: Key) -> bool:
        return sysctl.routes_localnet() if key == self.localnet else sysctl.forwards(self._family)


class Liberality:
    """Follows whether connection tracking is liberal, which decides about INVALID packets.

    Anybody may set it at any time, and it is loaded by the first rules that need it.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._now = sysctl.tracks_liberally(sysctl.TCP_LIBERAL)  # as of our last look
        self._rendered = self._now

    def rendered(self) -> bool:
        """Return whether it is liberal; what is rendered now goes by it."""
        self._rendered = self._now
        return self._now

    def disturbed(self) -> bool:
        """Say whether it is otherwise than when rules were rendered last; log a change."""
        before, self._now = self._now, sysctl.tracks_liberally(sysctl.TCP_LIBERAL)
        if self._now != before:
            log.info(
                "%s: %s changed: forwarded packets that connection tracking finds invalid %s",
                self._family.value,
                sysctl.TCP_LIBERAL.name,
                "pass from now on" if self._now else "are dropped from now on",
            )
        return self._now != self._rendered
