"""The parts of a proxy put together: the loop and what it tells, around a data path."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from kproxy.config.fields import Configuration, Iptables, Ipvs, Mode, Nftables
from kproxy.config.loading import to_settings
from kproxy.core.addresses import Family, Network
from kproxy.core.claims import Conflict
from kproxy.core.compile import Compiler
from kproxy.core.objects import Node, ObjectKey, Service
from kproxy.core.settings import Settings
from kproxy.core.store import Change, Connected, Difference
from kproxy.core.table import TableChanges
from kproxy.node import heap
from kproxy.node.listening import listening
from kproxy.ports.data_path import Backend, BackendError, DataPath
from kproxy.ports.source import Source
from kproxy.proxy.data_paths import others
from kproxy.proxy.handover import Handover, end_others
from kproxy.proxy.host import address_events, host_addresses, host_networks
from kproxy.proxy.port_watch import PortWatch
from kproxy.proxy.remarks import (
    conflict_lines,
    counts_line,
    in_force_line,
    limit_lines,
    node_lines,
    overlap_lines,
    service_lines,
)
from kproxy.proxy.unserved import Unserved
from kproxy.run.http.connection import Limits
from kproxy.run.http.health import ProxyHealth
from kproxy.run.http.health_ports import HealthPorts
from kproxy.run.http.server import HttpServer
from kproxy.run.loop.agent import Agent, Ended, Hooks, Host
from kproxy.run.loop.networks import HostNetworks
from kproxy.run.loop.reconcile import Applied
from kproxy.run.loop.settings import LoopSettings
from kproxy.run.loop.status import FamilyStatus
from kproxy.run.loop.worker import Written
from kproxy.run.metrics import Metrics, Readers

log = logging.getLogger(__name__)

_OPEN_TRIES = 5
_OPEN_PAUSE_S = 0.5
_HEALTH_CONNECTIONS = 512  # over all healthCheckNodePorts

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Around:
    """What a proxy stands in.

    - `executors` have one thread each.
    - `listed` is told of the Node object, None if there is none, when everything was listed once.
    - `first_written` is called once, when the kernel holds some family's rules. It has loaded what
      they need then, and what comes with settings of its own has them from here on.
    - `port_failed` is told of a Service whose healthCheckNodePort cannot be had, and why.
    - `node_may_lack`: the node takes part although there is no Node object of its name.
    - `unserved` is made of the compiler, and says what forwards nothing.
    """

    executors: Mapping[Family, Executor]
    source: Source
    metrics: Metrics
    listed: Callable[[Node | None], None]
    first_written: Callable[[], object]
    port_failed: Callable[[ObjectKey, str], None]
    node_may_lack: bool
    unserved: Callable[[Compiler], Unserved]


@dataclass(frozen=True, slots=True)
class Proxy:
    """Everything that a proxy process is made of; `unavailable` families cannot be served here."""

    compiler: Compiler
    agent: Agent
    health: ProxyHealth
    health_ports: HealthPorts
    port_watch: PortWatch
    networks: HostNetworks
    handover: Handover
    unavailable: tuple[Family, ...]


def build(
    configuration: Configuration,
    path: DataPath,
    node_name: str,
    families: Collection[Family],
    around: Around,
) -> Proxy:
    """Put the parts together.

    A family that the host cannot serve is logged and left out. Raises BackendError if none is left.
    """
    started = time.monotonic()
    opened = _open(path, families, around.executors)
    core_settings = to_settings(configuration, node_name)
    compiler = Compiler(core_settings, opened)
    connected = _connected()
    compiler.apply((Connected(connected),))
    settings = loop_settings(configuration)
    telling = _Telling(compiler, core_settings, around, started)
    not_chosen = _once(partial(others, configuration))  # no first write waits for their import
    handover = Handover(
        lambda family: (former for each in (path, *not_chosen()) for former in each.former(family)),
        ThreadPoolExecutor(1, "handover"),
    )
    agent = Agent(
        compiler,
        list(opened.values()),
        settings,
        host=Host(around.executors, host_addresses, random.random),
        hooks=Hooks(
            differed=telling.differed,
            took=telling.took,
            began=around.metrics.began,
            done=telling.done,
            compiled=telling.compiled,
            first_commit=partial(end_others, handover=handover, path=path),
            ready=telling.ready,
        ),
    )
    stand_in = _nameless(node_name) if around.node_may_lack else None
    health = ProxyHealth(
        statuses=agent.status,
        node=lambda: compiler.node or stand_in,
        sources=around.source.status,
        patience_s=2 * settings.sync_period_s,
        clock=time.monotonic,
        wall_ns=time.time_ns,
    )
    health_ports = HealthPorts(
        HttpServer(Limits(connections=_HEALTH_CONNECTIONS), time.time),
        healthy=health.healthy,
        local_addresses=host_addresses,
        failed=around.port_failed,
    )
    telling.in_force = health_ports.update
    around.metrics.watch(
        Readers(
            compiler=compiler,
            statuses=agent.status,
            source=around.source.status,
            probes=lambda: _probes(health),
            sync_period_s=settings.sync_period_s,
        )
    )
    port_watch = PortWatch(compiler, listening, telling.say_conflicts)
    telling.tables_changed = port_watch.compiled
    networks = HostNetworks(host_networks, address_events, agent.take, known=connected)
    unavailable = tuple(each for each in families if each not in opened)
    return Proxy(compiler, agent, health, health_ports, port_watch, networks, handover, unavailable)


def _once(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """Return what makes something when it is first asked for it, by whichever thread."""
    lock, made = threading.Lock(), cache(make)

    def get() -> _Made:
        with lock:
            return made()

    return get


def _connected() -> frozenset[Network]:
    """Return the networks that the host is directly connected to, as far as it says."""
    try:
        return host_networks()
    except BackendError as error:
        log.warning("%s; taking it to be in no network until it answers", error)
        return frozenset()


def _nameless(node_name: str) -> Node:
    """Return what stands for a Node object that does not exist."""
    return Node(key=ObjectKey("", node_name), zone="", addresses=(), pod_cidrs=(), deleting=False)


def _probes(health: ProxyHealth) -> Mapping[tuple[str, int], int]:
    """Return how often each probe gave each status code."""
    answers = {"healthz": health.healthz_answers, "livez": health.livez_answers}
    return {(name, code): n for name, codes in answers.items() for code, n in codes.items()}


def _open(
    path: DataPath, families: Iterable[Family], executors: Mapping[Family, Executor]
) -> dict[Family, Backend]:
    """Return the backend of every family that has one, IPv4 and IPv6 apart."""
    opened: dict[Family, Backend] = {}
    failure: BackendError | None = None
    opening = {family: executors[family].submit(_open_family, path, family) for family in families}
    for family, future in opening.items():
        try:
            opened[family] = future.result()
        except BackendError as error:
            log.error("%s will not be served: %s", family.value, error)
            failure = error
    if not opened and failure is not None:
        raise failure
    return opened


def _open_family(path: DataPath, family: Family) -> Backend:
    for _ in range(_OPEN_TRIES - 1):
        try:
            return path.backend(family)
        except BackendError as error:
            if not error.transient:
                raise
        time.sleep(_OPEN_PAUSE_S)
    return path.backend(family)


async def apply_once(
    proxy: Proxy, changes: tuple[Change, ...]
) -> Mapping[Family, Applied | BackendError]:
    """Bring the kernel in line with one complete state and say how it went."""
    return await proxy.agent.once(_only(changes))


def loop_settings(configuration: Configuration) -> LoopSettings:
    """Return the loop's times from the section that belongs to the mode.

    In ebpf a write costs as much as what changed, so nothing is gained by letting changes wait.
    """
    section: Iptables | Ipvs | Nftables
    match configuration.mode:
        case Mode.EBPF:
            return LoopSettings(0.0, configuration.iptables.sync_period_s)
        case Mode.NFTABLES:
            section = configuration.nftables
        case Mode.IPVS:
            section = configuration.ipvs
        case Mode.IPTABLES:
            section = configuration.iptables
    spacing = section.min_sync_period
    return LoopSettings(spacing.span if spacing.chosen else None, section.sync_period_s)


async def _only(changes: tuple[Change, ...]) -> AsyncIterator[tuple[Change, ...]]:
    yield changes


class _Telling:
    """Tells the log and the health ports what becomes of the loop's work, each thing once."""

    def __init__(
        self, compiler: Compiler, settings: Settings, around: Around, started: float
    ) -> None:
        self.in_force: Callable[[Mapping[Family, TableChanges]], None] = lambda changes: None
        self.tables_changed: Callable[[Mapping[Family, TableChanges]], None] = lambda changes: None
        self._compiler = compiler
        self._settings = settings
        self._around = around
        self._unserved = around.unserved(compiler)
        self._started = started  # before the data path was opened, which may take seconds
        self._listed = False
        self._any_written = False
        self._conflicts: frozenset[Conflict] = frozenset()
        self._said: set[str] = set()
        self._writing: dict[Family, TableChanges] = {}  # taken, and not known to be in the kernel

    def differed(self, difference: Difference) -> None:
        """Take note of an object that was added, altered or removed."""
        self._around.metrics.differed(difference)
        self._unserved.differed(difference)
        if isinstance(difference.new, Service):
            self._say_once(logging.WARNING, service_lines((difference.new,)))

    def took(self, changed: Mapping[Family, TableChanges], seconds: float) -> None:
        """Take note of a batch. One that changes no table may change why nothing is forwarded."""
        self._around.metrics.took(changed, seconds)
        if not changed:
            self._say_unserved()

    def compiled(self, changed: Mapping[Family, TableChanges]) -> None:
        """Log what is new: who claims a frontend twice, and what cannot be had."""
        if not self._listed:
            self._listed = True
            counts = counts_line(self._compiler.tables.values())
            log.info("all is listed: %s, %.2f s after the start", counts, self._seconds())
            self._around.listed(self._compiler.node)
        self.say_conflicts()
        self.tables_changed(changed)
        self._say_once(logging.WARNING, node_lines(self._compiler.node))
        self._say_once(logging.WARNING, overlap_lines(self._compiler.tables))
        self._say_once(logging.INFO, limit_lines(self._settings, self._compiler.tables))
        self._say_unserved()

    def say_conflicts(self) -> None:
        """Log who claims in vain what somebody else has, and did not before."""
        conflicts = self._compiler.conflicts()
        for line in conflict_lines(conflicts - self._conflicts):
            log.warning("%s", line)
        self._conflicts = conflicts

    def _say_unserved(self) -> None:
        for level, text in self._unserved.news():
            log.log(level, "%s", text)

    def _say_once(self, level: int, lines: Iterable[str]) -> None:
        new = sorted(set(lines) - self._said)
        for line in new:
            log.log(level, "%s", line)
        self._said.update(new)

    def done(self, ended: Ended) -> None:
        """Pass on what the kernel holds.

        A health port that answers before the rules are in force would draw traffic too early.
        """
        self._around.metrics.done(ended)
        family = ended.family
        if ended.job.changes is not None:
            before = self._writing.get(family, TableChanges(family))
            self._writing[family] = before.then(ended.job.changes)
        if isinstance(ended.outcome, Written):
            self.in_force({family: self._writing.pop(family)})
            if not self._any_written:
                self._any_written = True
                self._around.first_written()

    def ready(self, statuses: Iterable[FamilyStatus]) -> None:
        """Say that every family was tried."""
        in_force = [status for status in statuses if not status.failures]
        if in_force:
            log.info(
                "ready: %s, %.2f s after the start",
                in_force_line(self._compiler.tables, in_force),
                self._seconds(),
            )
        else:
            log.error("not ready: the kernel refused every IP family; trying again")
        heap.loaded()

    def _seconds(self) -> float:
        return time.monotonic() - self._started
