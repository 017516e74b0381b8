"""A running proxy: source, loop and data path put together."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from kproxy import heap
from kproxy.backend import Backend, BackendError
from kproxy.config import to_settings
from kproxy.config_fields import Configuration
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Mode
from kproxy.core.store import Change
from kproxy.core.table import TableChanges
from kproxy.host import host_addresses
from kproxy.remarks import conflict_line, counts_line, limit_lines
from kproxy.run.agent import Agent, Hooks, Host
from kproxy.run.reconcile import Applied
from kproxy.run.settings import LoopSettings
from kproxy.run.status import FamilyStatus
from kproxy.watch.manifests import ManifestSource
from kproxy.wiring import DataPath

log = logging.getLogger(__name__)

_OPEN_TRIES = 5
_OPEN_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Proxy:
    """Everything that a proxy process is made of; `unavailable` families cannot be served here."""

    compiler: Compiler
    agent: Agent
    unavailable: tuple[Family, ...]


def build(
    configuration: Configuration,
    path: DataPath,
    node_name: str,
    families: Collection[Family],
    *,
    executor: Executor,
) -> Proxy:
    """Put the parts together; `executor` has one thread.

    A family that the host cannot serve is logged and left out. Raises BackendError if none is left.
    """
    started = time.monotonic()
    opened = _open(path, families)
    compiler = Compiler(to_settings(configuration, node_name), opened)
    reports = _Reports(compiler, configuration.mode)

    def tell_ready(statuses: Iterable[FamilyStatus]) -> None:
        in_force = [status.family for status in statuses if not status.failures]
        if in_force:
            log.info(
                "ready: %s in the kernel for %s, %.2f s after the start",
                counts_line(compiler.tables[family] for family in in_force),
                " and ".join(family.value for family in in_force),
                time.monotonic() - started,
            )
        else:
            log.error("not ready: the kernel refused every IP family; trying again")
        heap.loaded()

    agent = Agent(
        compiler,
        list(opened.values()),
        loop_settings(configuration),
        host=Host(executor, host_addresses, random.random),
        hooks=Hooks(
            compiled=reports.tell,
            first_commit=path.in_force,
            ready=tell_ready,
        ),
    )
    return Proxy(compiler, agent, tuple(each for each in families if each not in opened))


def _open(path: DataPath, families: Iterable[Family]) -> dict[Family, Backend]:
    """Return the backend of every family that has one, IPv4 and IPv6 apart."""
    opened: dict[Family, Backend] = {}
    failure: BackendError | None = None
    for family in families:
        try:
            opened[family] = _open_family(path, family)
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


async def follow(proxy: Proxy, folder: Path, node_name: str) -> None:
    """Keep the kernel in step with a folder of manifests until SIGTERM or SIGINT. Rules stay."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, proxy.agent, number)
    source = ManifestSource(folder, node_name=node_name, log=logging.getLogger("kproxy.manifests"))
    with heap.loading():
        await proxy.agent.run(source.batches())


async def apply_once(
    proxy: Proxy, changes: tuple[Change, ...]
) -> Mapping[Family, Applied | BackendError]:
    """Bring the kernel in line with one complete state and say how it went."""
    return await proxy.agent.once(_only(changes))


def loop_settings(configuration: Configuration) -> LoopSettings:
    """Return the loop's times from the section that belongs to the mode."""
    match configuration.mode:
        case Mode.NFTABLES:
            periods = configuration.nftables
            return LoopSettings(periods.min_sync_period_s, periods.sync_period_s)
        case Mode.IPVS:
            ipvs = configuration.ipvs
            return LoopSettings(ipvs.min_sync_period_s, ipvs.sync_period_s)
        case Mode.IPTABLES | Mode.EBPF:
            iptables = configuration.iptables
            return LoopSettings(iptables.min_sync_period_s, iptables.sync_period_s)


async def _only(changes: tuple[Change, ...]) -> AsyncIterator[tuple[Change, ...]]:
    yield changes


def _stop(agent: Agent, number: int) -> None:
    log.info("%s: stopping, the rules stay in place", signal.Signals(number).name)
    agent.stop()


class _Reports:
    """Says once of each frontend that two Services claim who gets it, and once what cannot be."""

    def __init__(self, compiler: Compiler, mode: Mode) -> None:
        self._compiler = compiler
        self._mode = mode
        self._conflicts: set[str] = set()
        self._limits: set[str] = set()

    def tell(self, changed: Mapping[Family, TableChanges]) -> None:
        """Log what is new."""
        del changed
        conflicts = {conflict_line(conflict) for conflict in self._compiler.conflicts()}
        for line in sorted(conflicts - self._conflicts):
            log.warning("%s", line)
        self._conflicts = conflicts
        limits = set(limit_lines(self._mode, self._compiler.tables))
        for line in sorted(limits - self._limits):
            log.info("%s", line)
        self._limits |= limits
