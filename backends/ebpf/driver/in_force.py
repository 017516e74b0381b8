"""Putting the programs of a version in force: after the table, hooks before devices, all at once.

What is attached from an earlier start stays so, and gets the new programs in one step each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from backends.ebpf import places
from backends.ebpf.driver import attach
from backends.ebpf.driver import hooks as socket_hooks
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.device_layout import HostFlag, SocketHooks
from backends.ebpf.driver.devices import Devices
from backends.ebpf.driver.gate import Gate
from backends.ebpf.driver.hand_over import HandOver
from backends.ebpf.driver.hooks import Hooks
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.driver.loader import Version
from backends.kernel.bpf.programs import Code
from kproxy.core.addresses import Family

log = logging.getLogger(__name__)

# Where an API server allocates NodePorts, unless it is told otherwise. To masquerade by one of them
# would take it from its Service.
_NODE_PORTS = (30000, 32767)

_BUDGET_S = 0.1


class InForce:
    """The programs of one family. Any call may raise BackendError.

    `hooks` is None where sockets are left alone; `codes` are those of the socket hooks.
    """

    def __init__(
        self,
        family: Family,
        root: Path,
        version: Version,
        *,
        hooks: Hooks | None,
        codes: Mapping[str, Code],
        gate: Gate,
        devices: Devices,
        claims: Claims,
        hand_over: HandOver,
        mark: int,
        hooked: SocketHooks,
    ) -> None:
        self._family = family
        self._version = version
        self._hooks = hooks
        self._codes = codes
        self._gate = gate
        self._devices = devices
        self._claims = claims
        self._hand_over = hand_over
        self._host = HostSettings(version.maps["host"])
        self._mark = mark
        self._hooked = hooked
        self._root = root
        self._folder = places.hooks(root, family)
        self._marker = places.in_force(root, family)
        self._taken_up = False
        self._retired = False

    def holds(self) -> bool:
        """Say whether this version has been put in force, by whomever. Never writes."""
        return self._version.is_published and self._marker.is_dir()

    def begin(self) -> None:
        """Attach everything; the maps hold the table already.

        Until all is attached new connections pass, for whoever serves them so far: one that met
        our programs at one device and not at the next would be lost.
        """
        first = not self._marker.is_dir()
        if first:
            self._host.set(HostFlag.WITHDRAWN, on=True)
        self._write_host()
        self._version.publish()
        self._attach()
        self._version.catch_up()
        while self._devices.tend(_BUDGET_S):
            pass
        if first:
            self._hand_over.begin()
        self._host.set(HostFlag.WITHDRAWN, on=False)
        self._marker.mkdir(exist_ok=True)

    def tend(self) -> None:
        """Take up what an earlier start attached, and put right what others did to it."""
        self._write_host()
        if not self._taken_up:
            self._attach()
        mended = self._version.mend() + self._gate.mend(self._family, self._version.programs)
        if mended:
            log.info(
                "%s: put back %d pins or constants of our programs", self._family.value, mended
            )
        repaired = self._hooks.repair() if self._hooks is not None else 0
        if repaired:
            log.info("%s: attached %d socket hooks again", self._family.value, repaired)

    def retire(self) -> None:
        """Remove former versions, once, as soon as nothing of them is attached anywhere."""
        if not self._retired and self._taken_up and self._devices.attached():
            attach.remove_own_links(self._root, self._family)
            self._gate.retire()
            self._version.retire()
            self._retired = True

    def _write_host(self) -> None:
        self._host.write(mark=self._mark, node_ports=_NODE_PORTS, socket_hooks=self._hooked)

    def _attach(self) -> None:
        try:
            if self._hooks is None:
                socket_hooks.remove(self._folder)
            else:
                self._hooks.attach(self._version.programs, self._codes)
        finally:  # what no hook translates, programs at devices do
            self._gate.lead_to(self._family, self._version.programs)
            self._devices.attach(self._gate.programs)
            self._claims.complete()
        self._taken_up = True
