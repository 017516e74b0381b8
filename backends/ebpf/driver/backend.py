"""The data path of one family: its programs, the maps that they read, and what looks after both."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from backends.ebpf.driver.counters import Counters
from backends.ebpf.driver.devices import Devices
from backends.ebpf.driver.flows import Flows
from backends.ebpf.driver.gate import Gate
from backends.ebpf.driver.hand_over import HandOver
from backends.ebpf.driver.in_force import InForce
from backends.ebpf.driver.loader import Version
from backends.ebpf.driver.pods import Pods
from backends.ebpf.driver.sockets import TranslatedSockets
from backends.ebpf.driver.surroundings import Surroundings
from backends.ebpf.driver.sweep import Sweep
from backends.ebpf.driver.table import TableMaps
from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes, Image, Key
from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePortKey, TableChanges
from kproxy.ports.data_path import BackendError, Sample

log = logging.getLogger(__name__)

PROGRAMS = "programs"
"""The key of the one object that is no map's entry: the programs, in force."""

_IN_FORCE = b"\1"
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a family's data path is put together from.

    `pods` is None and `sockets` are none where sockets are left alone.
    """

    version: Version
    gate: Gate
    table: TableMaps
    in_force: InForce
    devices: Devices
    pods: Pods | None
    sockets: Mapping[Protocol, TranslatedSockets]
    flows: Flows
    sweep: Sweep
    hand_over: HandOver
    surroundings: Surroundings
    counters: Counters


class EbpfBackend:
    """One family's data path."""

    def __init__(
        self, family: Family, parts: Parts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.family = family
        self._parts = parts
        self._clock = clock
        self._next_look_s = clock()
        self._rendered = False
        self._lets_through = False
        self._refused: dict[str, str] = {}  # what was said of a part that could not be tended
        self._events = select.epoll()
        self._events.register(parts.devices.fileno(), select.EPOLLIN)
        if parts.pods is not None:
            self._events.register(parts.pods.fileno(), select.EPOLLIN)

    def render(self, changes: TableChanges) -> Mapping[Key, bytes | None]:
        """Take table changes in; return the image entries that they alter."""
        patch = dict(self._parts.table.render(changes))
        if not self._rendered:
            self._rendered = True
            patch[PROGRAMS] = _IN_FORCE
        return patch

    def observe(self) -> Image:
        """Read back the entries of the table's maps, and whether the programs are in force."""
        image: dict[Key, bytes] = self._parts.table.observe()
        if self._parts.in_force.holds():
            image[PROGRAMS] = _IN_FORCE
        return image

    def commit(self, changes: Changes) -> None:
        """Write the changes; at first, let the programs meet packets once all is written."""
        entries = Changes(
            {key: value for key, value in changes.put.items() if key != PROGRAMS},
            changes.drop - {PROGRAMS},
        )
        self._parts.devices.detect_pods(self._parts.table.local_pods)
        if entries:
            self._parts.table.commit(entries)
        if PROGRAMS in changes.put:
            self._parts.in_force.begin()

    def settle(self) -> None:
        """Try again what was refused, and let the node pass on what the programs translated."""
        self._parts.table.settle()
        if not self._lets_through:  # once: from here on `tend` looks after it
            self._parts.surroundings.ensure()
            self._lets_through = True

    def disturbed(self) -> bool:
        """Say whether `tend` has seen that others changed entries of the table.

        What they do to programs, links and filters is put right there.
        """
        return not self._parts.in_force.holds() or self._parts.table.disturbed()

    def unheld(self) -> Mapping[ServicePortKey, str]:
        """Return the service ports that are left out, and why."""
        return self._parts.table.unheld()

    def owners(self, keys: Iterable[Key]) -> frozenset[ServicePortKey]:
        """Return the service ports that these entries are made for."""
        return self._parts.table.owners(key for key in keys if key != PROGRAMS)

    def describe(self, key: Key) -> str:
        """Return what an object is, for logs."""
        if key == PROGRAMS:
            return "the programs, attached to sockets and devices"
        return self._parts.table.describe(key)

    def flows(self, wanted: Destinations) -> Iterator[Flow]:
        """Yield the UDP flows to `wanted`, whoever tracks them."""
        for mark, tracker in self._trackers().items():
            for flow in tracker.flows(wanted):
                yield flow._replace(handle=mark + flow.handle)

    def forget_flows(self, flows: Iterable[Flow]) -> int:
        """Forget flows where they are tracked; return how many still existed."""
        by_mark: dict[bytes, list[Flow]] = {}
        for flow in flows:
            mark, handle = flow.handle[:1], flow.handle[1:]
            by_mark.setdefault(mark, []).append(flow._replace(handle=handle))
        trackers = self._trackers()
        return sum(trackers[mark].forget_flows(found) for mark, found in by_mark.items())

    def counters(self) -> Iterator[Sample]:
        """Return what the programs counted, and how full their maps are."""
        return self._parts.counters.samples()

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when a device or a pod is to be looked at."""
        return self._events.fileno()

    def tend(self, budget_s: float) -> bool:
        """Follow devices and pods, let flows expire, put right what others did."""
        parts, until = self._parts, self._clock() + budget_s
        parts.devices.detect_pods(parts.table.local_pods)
        if self._clock() >= self._next_look_s:
            self._next_look_s = self._clock() + _LOOK_EVERY_S
            self._look()
        tended = (parts.devices, parts.pods, parts.sweep, *parts.sockets.values())
        left = [each.tend(max(0.0, until - self._clock())) for each in tended if each is not None]
        parts.in_force.retire()
        return any(left)

    def close(self) -> None:
        """Let go of what this process holds: all goes on without it."""
        if self._events.closed:
            return
        self._events.close()
        parts = self._parts
        for each in (parts.devices, parts.pods, parts.version, parts.gate):
            if each is not None:
                each.close()

    def _look(self) -> None:
        """Do what is due once a second, in some milliseconds; a refusal holds up nothing else."""
        parts = self._parts
        for each in (parts.in_force, parts.surroundings, parts.hand_over, parts.table):
            name = type(each).__name__
            try:
                each.tend()
                self._refused.pop(name, None)
            except BackendError as error:
                if self._refused.get(name) != str(error):
                    log.warning("%s: %s; trying again", self.family.value, error)
                self._refused[name] = str(error)

    def _trackers(self) -> dict[bytes, Flows | TranslatedSockets | HandOver]:
        """Return who knows flows, by what its handles begin with here."""
        trackers: dict[bytes, Flows | TranslatedSockets | HandOver] = {
            b"f": self._parts.flows,
            b"k": self._parts.hand_over,
        }
        if Protocol.UDP in self._parts.sockets:
            trackers[b"s"] = self._parts.sockets[Protocol.UDP]
        return trackers
