"""Follows the devices of the host: our programs are at each, and maps tell what they must know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from backends.ebpf.driver import attachable, device_layout
from backends.ebpf.driver.addresses import Addresses
from backends.ebpf.driver.attach import Attacher
from backends.ebpf.driver.claims import Claims
from backends.ebpf.driver.drift import Drift
from backends.ebpf.driver.entries import Entries
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.driver.loopback import Loopback
from backends.ebpf.driver.sides import Programs
from backends.ebpf.driver.waiting import Waiting
from backends.kernel.bpf.maps import Map
from backends.kernel.links import Link, changed_link, links
from backends.kernel.route_netlink import Event, Group, Kind, Overrun, RouteEvents
from backends.kernel.traffic_control import changed_traffic
from kproxy.core.addresses import Family
from kproxy.core.table import LocalPods, Undetected
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_GROUPS = {
    Family.IPV4: Group.IPV4_ADDRESSES | Group.IPV4_ROUTES,
    Family.IPV6: Group.IPV6_ADDRESSES | Group.IPV6_ROUTES,
}
_EVENTS_AT_ONCE = 1024


class Devices:
    """One family's view of the host. Any call may raise BackendError.

    The maps are right from the beginning; programs are attached from `attach` on. What cannot be
    attached is logged once, tried again each second, and keeps no other device waiting.
    """

    def __init__(
        self,
        family: Family,
        maps: Mapping[str, Map],
        *,
        claims: Claims,
        attacher: Attacher,
        loopback: Loopback,
        clock: Callable[[], float],
    ) -> None:
        self._family = family
        self._attacher = attacher
        self._loopback = loopback
        self._clock = clock
        self._entries = Entries(maps["devices"])
        self._addresses = Addresses(family, maps, claims)
        self._host = HostSettings(maps["host"])
        self._drift = Drift(attacher, clock)
        self._links: dict[int, Link] = {}
        self._attached: set[int] = set()
        self._programs: Programs | None = None
        self._local_pods: LocalPods = Undetected("not told yet")
        self._waiting = Waiting()
        self._refused: dict[int, str] = {}  # why, by device
        self._loopback_refused = ""
        self._stale = False
        self._events = RouteEvents(Group.LINKS | Group.TRAFFIC_CONTROL | _GROUPS[family])
        self._read()

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""
        return self._events.fileno()

    def detect_pods(self, local_pods: LocalPods) -> None:
        """Take in how local pods are told from others."""
        if local_pods != self._local_pods:
            self._local_pods = local_pods
            self._write(self._links)

    def attach(self, programs: Programs) -> None:
        """Attach these programs, or put them in the place of others.

        That is done here for loopback and uplinks, and in `tend` for all other devices.
        """
        self._programs = programs
        self._open_loopback()
        for device in self._links:
            self._wait(device)
        while (rank := self._waiting.first()) is not None and rank <= attachable.LAST_UPLINK:
            self._settle(self._waiting.pop())

    def attached(self) -> bool:
        """Say whether our programs are at all devices where they shall be."""
        return self._programs is not None and not (self._waiting or self._refused)

    def tend(self, budget_s: float) -> bool:
        """Follow what changed, attach what waits, look for drift; return whether more waits."""
        until = self._clock() + budget_s
        self._follow()
        if self._drift.due():
            self._look()
        while self._programs is not None and self._waiting:
            self._try(self._waiting.pop())
            if self._clock() >= until:
                break
        return self._programs is not None and bool(self._waiting)

    def close(self) -> None:
        """Stop following; what is attached stays."""
        self._events.close()

    def _follow(self) -> None:
        """Take in what was told, or everything where something of that was lost."""
        stale, self._stale = self._stale, True  # for an error before the end
        try:
            while not stale and (events := self._events.read(_EVENTS_AT_ONCE)):
                self._take(events)
        except Overrun:
            log.info("%s: too many changes of devices at once: reading all", self._family.value)
            stale = True
        if stale:
            self._events.drain()
            self._read()
        self._stale = False

    def _take(self, events: Iterable[Event]) -> None:
        changed: set[int] = set()
        gone: set[int] = set()
        for event in events:
            link = changed_link(event)
            if link is not None:
                changed.update(self._note(link, gone=event.kind == Kind.DELETED_LINK))
                (gone.add if event.kind == Kind.DELETED_LINK else gone.discard)(link.device)
            device = changed_traffic(event)
            if device in self._links:
                self._wait(device)
            self._addresses.take(event)
        self._write(changed)
        self._addresses.lost(gone)
        self._addresses.write()

    def _note(self, link: Link, *, gone: bool) -> set[int]:
        """Take in the new state of a device; return the devices whose entries that may alter."""
        before = self._links.get(link.device)
        if gone:
            self._links.pop(link.device, None)
        elif before == link:
            return set()
        else:
            self._links[link.device] = link
        self._wait(link.device)
        altered = {link.device}
        if link.kind == "bridge" and (gone or before is None or before.name != link.name):
            ports = self._links.values()
            altered.update(port.device for port in ports if port.master == link.device)
        return altered

    def _read(self) -> None:
        """Ask for everything."""
        before = self._links.keys()
        self._links = {link.device: link for link in links()}
        self._addresses.read()
        self._write(before | self._links.keys())
        self._entries.audit()
        self._attached = self._attacher.known()
        for device in self._links.keys() | self._attached:
            self._wait(device)

    def _write(self, devices: Iterable[int]) -> None:
        known = self._links
        self._entries.put(
            {
                device_layout.number(device): attachable.entry(
                    known[device], known, self._local_pods
                )
                if device in known
                else None
                for device in devices
            }
        )

    def _wait(self, device: int) -> None:
        link = self._links.get(device)
        if link is None:
            rank = attachable.GONE
        else:
            rank = attachable.rank(link, addressed=self._addresses.at(device))
        self._waiting.add(device, rank)

    def _try(self, device: int) -> None:
        try:
            self._settle(device)
        except BackendError as error:
            if self._refused.get(device) != str(error):
                log.warning(
                    "%s: %s: %s; trying again", self._family.value, self._name(device), error
                )
            self._refused[device] = str(error)

    def _settle(self, device: int) -> None:
        """Attach our programs to a device, or take them off: whichever is due."""
        link = self._links.get(device)
        assert self._programs is not None
        if link is None:
            self._attacher.forget(device)
            self._attached.discard(device)
        elif not attachable.suits(link):
            if device in self._attached:
                self._attacher.detach(device)
                self._attached.discard(device)
        elif (device in self._attached or attachable.is_due(link)) and self._attacher.attach(
            device, self._programs
        ):
            self._attached.add(device)
        self._refused.pop(device, None)

    def _look(self) -> None:
        """Find what others did of which nobody tells, and try again what was refused."""
        self._host.follow()
        if self._programs is None:
            return
        self._open_loopback()
        for device in self._drift.disturbed(sorted(self._attached)):
            log.info("%s: %s: putting our programs back", self._family.value, self._name(device))
            self._wait(device)
        for device in self._refused:
            self._wait(device)
        if self._drift.around():
            wrong = self._entries.audit() + self._addresses.audit()
            if wrong:
                log.info(
                    "%s: put back %d map entries of devices and addresses",
                    self._family.value,
                    wrong,
                )

    def _name(self, device: int) -> str:
        return self._links[device].name if device in self._links else f"device number {device}"

    def _open_loopback(self) -> None:
        """Set what loopback needs; all else works without it."""
        try:
            made = self._loopback.open()
            if made:
                log.info("%s: turned %d settings of lo on", self._family.value, made)
            self._loopback_refused = ""
        except BackendError as error:
            if self._loopback_refused != str(error):
                log.warning("%s: %s; trying again", self._family.value, error)
            self._loopback_refused = str(error)
