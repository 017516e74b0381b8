"""Settings of the node as kernel objects: wanted, observed and put right like rules.

Forwarding is wanted always and never given back: the container network and kubelet rely on it
too, and nobody can tell who turned it on. route_localnet is wanted while NodePorts are served on
IPv4 loopback, and counts as ours only beside our guard: others may have it on for themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from backends.kernel import sysctl
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)


class NodeSetting(Protocol):
    """A setting of the node."""

    @property
    def name(self) -> str:
        """Return what an operator calls it."""

    @property
    def value(self) -> str:
        """Return what is wanted of it."""

    def holds(self) -> bool:
        """Say whether it is as wanted. Raises BackendError."""

    def put(self) -> None:
        """Make it as wanted. Raises BackendError."""


class Settings:
    """What is wanted of the node, as entries of an image. `key_of` makes a key of a name."""

    def __init__(self, wanted: Iterable[NodeSetting], key_of: Callable[[str], Key]) -> None:
        self._wanted = {key_of(each.name): each for each in wanted}
        self._held: set[Key] = set()  # as last observed or written
        self._refused: set[Key] = set()  # not to be had so far

    def image(self) -> dict[Key, bytes]:
        """Return the entries of all of them."""
        return self._entries(self._wanted)

    def holding(self, key: Key) -> bool:
        """Say whether one held when we last looked."""
        return key in self._held

    def observe(self, keys: Collection[Key]) -> dict[Key, bytes]:
        """Return the entries of those of these that hold. A refused one counts as if it did."""
        self._held = {key for key in keys if self._wanted[key].holds()}
        self._refused -= self._held
        return self._entries(self._held | self._refused)

    def disturbed(self) -> bool:
        """Say whether others altered something since we last looked."""
        return not all(self._wanted[key].holds() for key in self._held)

    def put(self, key: Key) -> None:
        """Make one as wanted; if that is refused, `settle` tries again."""
        try:
            self._put(key)
        except BackendError:
            self._refused.add(key)

    def forget(self, key: Key) -> None:
        """Note that one is not wanted any more."""
        self._held.discard(key)
        self._refused.discard(key)

    def settle(self) -> None:
        """Try again what was refused. Raises BackendError, after all were tried.

        In a container /proc/sys cannot be written, and the rules do most of their work all the
        same: they must not wait for a setting that somebody else has to make.
        """
        refusals: list[BackendError] = []
        for key in sorted(self._refused):
            try:
                self._put(key)
            except BackendError as error:
                refusals.append(error)
            else:
                self._refused.discard(key)
        if refusals:
            raise _summary(refusals)

    def _put(self, key: Key) -> None:
        self._wanted[key].put()
        self._held.add(key)

    def _entries(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        return {key: self._wanted[key].value.encode() for key in keys}


def _summary(refusals: list[BackendError]) -> BackendError:
    """Return the first of several refusals, which says how many there are."""
    first, *others = refusals
    if not others:
        return first
    detail = f"{first.detail}; {len(others)} more refused"
    return BackendError(first.doing, detail, transient=first.transient)


class Sysctls:
    """Forwarding and route_localnet, for one family. `key_of` makes a key of a sysctl's name."""

    def __init__(self, family: Family, key_of: Callable[[str], Key]) -> None:
        self.forwarding = key_of(sysctl.forwarding_name(family))
        self.localnet = key_of(sysctl.localnet_name())
        self._settings = Settings((sysctl.Forwarding(family), sysctl.LOCALNET), key_of)
        self._wanted: dict[Key, bytes] = {}

    def render(self, *, localhost: bool) -> dict[Key, bytes | None]:
        """Return the image entries that differ from those of the last call, None where gone."""
        before = self._wanted
        self._wanted = self._settings.image()
        if not localhost:
            del self._wanted[self.localnet]
        gone: dict[Key, bytes | None] = dict.fromkeys(before.keys() - self._wanted)
        return gone | {key: value for key, value in self._wanted.items() if key not in before}

    def observe(self, *, guarded: bool) -> dict[Key, bytes]:
        """Return the image of what is turned on; `guarded` says that our guard stands."""
        may_be_ours = {self.forwarding}
        if guarded or self._settings.holding(self.localnet):
            may_be_ours.add(self.localnet)
        return self._settings.observe(may_be_ours)

    def disturbed(self) -> bool:
        """Say whether others turned something off since we last looked."""
        return self._settings.disturbed()

    def forward(self) -> None:
        """Turn forwarding on; if that is refused, `settle` tries again."""
        self._settings.put(self.forwarding)

    def open_localnet(self) -> None:
        """Turn route_localnet on; the guard must stand. If it is refused, `settle` tries again."""
        self._settings.put(self.localnet)

    def localnet_closed(self) -> None:
        """Note that route_localnet is not wanted any more, and off unless somebody else needs it.

        The guard must still stand while it is turned off.
        """
        self._settings.forget(self.localnet)

    def settle(self) -> None:
        """Try again what was refused. Raises BackendError."""
        self._settings.settle()


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
