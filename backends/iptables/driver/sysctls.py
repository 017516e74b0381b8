"""The node's settings as kernel objects: wanted, observed and put right like our chains.

Forwarding is wanted always and never given back: the container network and kubelet rely on it
too, and nobody can tell who turned it on. route_localnet is wanted while NodePorts are served on
IPv4 loopback, and counts as ours only beside our guard: others may have it on for themselves.
"""

from __future__ import annotations

from backends.iptables.driver import localnet
from backends.iptables.render.rules import sysctl_key
from backends.kernel import sysctl
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.ports.data_path import BackendError

LOCALNET = sysctl_key(sysctl.localnet_name())

_ON = b"1"


class Sysctls:
    """The settings of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.forwarding = sysctl_key(sysctl.forwarding_name(family))
        self._wanted: dict[Key, bytes] = {}
        self._held: set[Key] = set()  # as last observed or written
        self._refused: set[Key] = set()  # wanted, and not to be had so far

    def render(self, *, localhost: bool) -> dict[Key, bytes | None]:
        """Return the image entries that differ from those of the last call, None where gone."""
        before = self._wanted
        self._wanted = {self.forwarding: _ON}
        if localhost:
            self._wanted[LOCALNET] = _ON
        gone: dict[Key, bytes | None] = dict.fromkeys(before.keys() - self._wanted)
        return gone | {key: value for key, value in self._wanted.items() if key not in before}

    def observe(self, *, guarded: bool) -> dict[Key, bytes]:
        """Return the image of what is turned on; `guarded` says that our guard stands."""
        may_be_ours = {self.forwarding}
        if guarded or LOCALNET in self._held:
            may_be_ours.add(LOCALNET)
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
        self._turn_on(LOCALNET)

    def close_localnet(self, variant: Variant) -> None:
        """Turn route_localnet off; the guard must still stand. Raises BackendError."""
        localnet.close(self._family, variant)
        self._held.discard(LOCALNET)
        self._refused.discard(LOCALNET)

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
        if key == LOCALNET:
            sysctl.route_localnet("1")
        else:
            sysctl.forward(self._family)
        self._held.add(key)

    def _is_on(self, key: Key) -> bool:
        return sysctl.routes_localnet() if key == LOCALNET else sysctl.forwards(self._family)
