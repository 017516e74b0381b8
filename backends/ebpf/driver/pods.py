"""Who the clients of socket hooks are: what the map `pods` says of network namespaces.

A hook that meets an unknown namespace reports it, and leaves its calls to tc until the map says
more. Layouts: ebpf/include/kproxy/pods.h.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import NamedTuple

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import DeviceFlag
from backends.ebpf.driver.namespaces import Elsewhere, Namespaces
from backends.kernel import namespaces, nat_rules, peers
from backends.kernel.bpf.maps import Map
from backends.kernel.bpf.ring import RingBuffer
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_COOKIE = struct.Struct("=Q")
_FLAGS = struct.Struct("=I")
_REPORT = struct.Struct("=QQ")
_REPORTS_AT_ONCE = 64
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 30.0
_FORGOTTEN_AFTER_S = 60.0
_SEARCHES_APART_S = 1.0


class _NotYet(Exception):
    """A search must wait: it looks at every process of the machine."""


class PodFlag(IntFlag):
    """enum pod_flags."""

    KNOWN = 1
    DEVICE = 2
    MESHED = 4


class Nature(NamedTuple):
    """What a namespace is. `device` is the host's end of what joins it, None: joined otherwise."""

    addresses: tuple[bytes, ...]
    device: int | None
    meshed: bool


@dataclass(frozen=True, slots=True)
class _Watched:
    """A namespace that the map names, and when to look at it again."""

    process: int
    due_s: float
    delay_s: float


class Pods:
    """Keeps what the hooks of one family know of namespaces.

    A pod has its address and the rules of its mesh from its first second or so; a namespace may be
    met before. So each is looked at again, soon at first and then every half minute.
    """

    def __init__(
        self,
        family: Family,
        *,
        pods: Map,
        reports: RingBuffer,
        devices: Map,
        clock: Callable[[], float],
        seen: Namespaces,
    ) -> None:
        self._family = family
        self._pods = pods
        self._reports = reports
        self._devices = devices
        self._clock = clock
        self._namespaces = seen
        self._searched_s = float("-inf")
        self._told = False
        self._home = os.open(namespaces.OWN, os.O_RDONLY | os.O_CLOEXEC)
        now = clock()
        self._watched = {
            _COOKIE.unpack(key)[0]: _Watched(0, now, _FIRST_DELAY_S) for key, _ in pods.items()
        }

    def fileno(self) -> int:
        """Return the descriptor that is readable when a namespace was reported."""
        return self._reports.fileno()

    def tend(self, budget_s: float) -> bool:
        """Look at what was reported and at what is due; say whether there is more of it.

        Raises BackendError where a map cannot be written.
        """
        end_s = self._clock() + budget_s
        reported = self._reports.read(_REPORTS_AT_ONCE)
        for cookie, process in map(_REPORT.unpack, reported):
            self._watched[cookie] = _Watched(process, self._clock(), _FIRST_DELAY_S)
        for cookie in [each for each, at in self._watched.items() if at.due_s <= self._clock()]:
            self._look(cookie)
            if self._clock() >= end_s:
                return True
        return len(reported) == _REPORTS_AT_ONCE

    def close(self) -> None:
        """Let go of what this process holds; the map stays as it is."""
        os.close(self._home)
        self._reports.close()

    def _look(self, cookie: int) -> None:
        """Bring what the map says of a namespace up to date, and plan the next look."""
        watched = self._watched[cookie]
        key = _COOKIE.pack(cookie)
        try:
            nature = self._nature(cookie, watched.process)
        except _NotYet:
            due_s = self._searched_s + _SEARCHES_APART_S
            self._watched[cookie] = replace(watched, due_s=due_s)
            return
        if nature is None and watched.delay_s >= _FORGOTTEN_AFTER_S:
            self._pods.delete(key)  # it would be reported anew
            del self._watched[cookie]
            return
        value = self._value(nature)
        if self._pods.lookup(key) != value:
            self._pods.update(key, value)
        now = self._clock()
        if nature is None:  # gone, or out of sight
            delay = _FORGOTTEN_AFTER_S
            self._watched[cookie] = replace(watched, due_s=now + delay, delay_s=delay)
            return
        longer = min(2 * watched.delay_s, _LONGEST_DELAY_S)
        self._watched[cookie] = replace(watched, due_s=now + watched.delay_s, delay_s=longer)

    def _nature(self, cookie: int, process: int) -> Nature | None:
        """Return what a namespace is, None where it cannot be looked at. Raises _NotYet."""
        try:
            try:
                return self._namespaces.ask(cookie, self._examine, process=process)
            except Elsewhere:
                self._search()
                return self._namespaces.ask(cookie, self._examine)
        except Elsewhere:
            if self._namespaces.hindrance:
                self._tell_once(self._namespaces.hindrance)
        except BackendError as error:
            self._tell_once(str(error))
        return None

    def _examine(self) -> Nature:
        """Look around in the namespace that this is called in."""
        return Nature(
            addresses=tuple(sorted(peers.usable_addresses(self._family))),
            device=peers.only_peer(self._home),
            meshed=nat_rules.are_there(self._family),
        )

    def _value(self, nature: Nature | None) -> bytes:
        """Return a struct pod; nothing is known of a namespace without an address."""
        width = self._family.bits // 8
        address, flags = bytes(width), PodFlag(0)
        if nature is not None and nature.addresses and nature.device is not None:
            device = self._devices.lookup(device_layout.number(nature.device))
            if device is not None:
                flags = PodFlag.KNOWN
                if _FLAGS.unpack_from(device)[0] & DeviceFlag.POD:
                    flags |= PodFlag.DEVICE
                if nature.meshed:
                    flags |= PodFlag.MESHED
                if len(nature.addresses) == 1:
                    (address,) = nature.addresses
        return address + _FLAGS.pack(flags)

    def _search(self) -> None:
        now = self._clock()
        if now - self._searched_s < _SEARCHES_APART_S:
            raise _NotYet
        self._searched_s = now
        self._namespaces.search()

    def _tell_once(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.warning("%s: pods' calls are served by tc, not in their sockets", why)
