"""The loop: changes come in, the kernel follows, and whatever else changes it is undone."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.store import Change, Difference
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import Backend, BackendError
from kproxy.run.loop.lane import Lane
from kproxy.run.loop.reconcile import Applied, Reconciler
from kproxy.run.loop.settings import LoopSettings
from kproxy.run.loop.status import FamilyStatus
from kproxy.run.loop.worker import Job, Outcome, Polled, Refused, Worker, Written

_ATTEMPTS_ONCE = 3  # of one family that is refused for a reason that may pass


class SourceEnded(Exception):
    """The source of changes stopped without an error: nothing would be followed any more."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the loop needs of the world around it.

    - `executor` has a single thread and outlives the agent: everything that blocks runs there.
    - `local_addresses` returns the node's addresses now, canonical; it runs in that thread and may
      raise BackendError.
    - `random` returns numbers from 0 to 1.
    - `clock` measures in that thread how long something takes, in seconds.
    """

    executor: Executor
    local_addresses: Callable[[Family], Collection[str]]
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that was done, and how long it took."""

    family: Family
    job: Job
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who else wants to know. All but `first_commit` are called in the event loop.

    - `differed`: an object was added, altered or removed; it is about to be compiled.
    - `took`: a batch was compiled into these changes, if any, in so many seconds.
    - `began`, `done`: of each job of each family, before and after it runs.
    - `compiled`: changes were compiled; the tables are up to date, the kernel is not yet.
    - `first_commit`: the kernel holds a family's rules for the first time. Runs in the worker
      thread, may raise BackendError, and is then called again later.
    - `ready`: every family was tried once; the statuses say what came of it.
    """

    differed: Callable[[Difference], None] = lambda difference: None
    took: Callable[[Mapping[Family, TableChanges], float], None] = lambda changes, seconds: None
    began: Callable[[Family, Job], None] = lambda family, job: None
    done: Callable[[Ended], None] = lambda ended: None
    compiled: Callable[[Mapping[Family, TableChanges]], None] = lambda changes: None
    first_commit: Callable[[Family], None] = lambda family: None
    ready: Callable[[Iterable[FamilyStatus]], None] = lambda statuses: None


class Agent:
    """Compiles changes as they come and keeps every family's data path in step.

    Compiling happens in the event loop, everything that blocks in the one worker thread, one job
    at a time. Each family has its own pace: one that the kernel refuses backs off alone. There is
    a backend for each family that `compiler` compiles.
    """

    def __init__(
        self,
        compiler: Compiler,
        backends: Sequence[Backend],
        settings: LoopSettings,
        *,
        host: Host,
        hooks: Hooks,
    ) -> None:
        self._compiler = compiler
        self._settings = settings
        self._host = host
        self._hooks = hooks
        self._lanes = {
            backend.family: Lane(backend.family, self._worker(backend), settings, host.random)
            for backend in backends
        }
        self._ready = False
        self._stopping = False
        self._wake = asyncio.Event()

    def status(self) -> tuple[FamilyStatus, ...]:
        """Return how every family is doing."""
        return tuple(lane.status for lane in self._lanes.values())

    def stop(self) -> None:
        """Let `run` return as soon as the write in flight is done. The rules stay."""
        self._stopping = True
        self._wake.set()

    async def run(self, batches: AsyncIterator[tuple[Change, ...]]) -> None:
        """Follow `batches` until `stop`.

        A write in flight is finished before this returns, raises or is cancelled. Raises what the
        source raised, and SourceEnded if it just ended.
        """
        follower = asyncio.create_task(self._follow(batches), name="follow the source")
        writer = asyncio.create_task(self._serve(), name="serve the kernel")
        try:
            await asyncio.wait({follower, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop()
            follower.cancel()
            await _end_of(follower)
            await _end_of(writer)
        for task in (writer, follower):
            if not task.cancelled():
                task.result()

    async def once(
        self, batches: AsyncIterator[tuple[Change, ...]]
    ) -> dict[Family, Applied | BackendError]:
        """Bring the kernel up to date with the first complete state, and say how it went.

        Raises SourceEnded if the source ends before Services and EndpointSlices were listed.
        """
        async for batch in batches:
            self._take(batch)
            if self._compiler.ready:
                break
        else:
            raise SourceEnded("the source ended before it listed Services and EndpointSlices")
        return {family: await self._try(lane) for family, lane in self._lanes.items()}

    def _worker(self, backend: Backend) -> Worker:
        local_addresses = partial(self._host.local_addresses, backend.family)
        return Worker(
            Reconciler(backend, local_addresses),
            after_first_commit=partial(self._hooks.first_commit, backend.family),
            counters=backend.counters,
            clock=self._host.clock,
        )

    async def _follow(self, batches: AsyncIterator[tuple[Change, ...]]) -> None:
        async for batch in batches:
            self._take(batch)
            await asyncio.sleep(0)  # a source with much to say must not keep the writer waiting
        raise SourceEnded("the source of Services and EndpointSlices ended")

    def _take(self, batch: tuple[Change, ...]) -> None:
        """Compile a batch and queue what it changes.

        The compiler says nothing before all is listed, and then names every family, even one whose
        table is empty: it still has to be written over what an earlier run left.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        changed = self._compiler.apply(batch, self._hooks.differed)
        now = clock()
        self._hooks.took(changed, now - started)
        if not changed:
            return
        for family, changes in changed.items():
            self._lanes[family].add(changes, now)
        self._wake.set()
        self._hooks.compiled(changed)

    async def _serve(self) -> None:
        """Do whatever is due, the longest overdue first, until told to stop.

        Whatever a job did is due again only after its end, so no family keeps another waiting.
        """
        clock = asyncio.get_running_loop().time
        while not self._stopping:
            lane = min(self._lanes.values(), key=Lane.next_at)
            wait_s = lane.next_at() - clock()
            if wait_s > 0:
                await self._sleep(wait_s)
                continue
            await self._do(lane, lane.next_job(clock()))
            self._announce()

    async def _sleep(self, wait_s: float) -> None:
        """Wait until the time has passed, or something was queued."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                await self._wake.wait()
        if not self._stopping:
            self._wake.clear()

    async def _do(self, lane: Lane, job: Job) -> Outcome:
        """Do a job and tell everybody how it went."""
        clock = asyncio.get_running_loop().time
        started = clock()
        self._hooks.began(lane.family, job)
        outcome = await self._run(lane, job)
        ended = clock()
        lane.finished(job, outcome, started=started, now=ended)
        self._hooks.done(Ended(lane.family, job, outcome, ended - started))
        return outcome

    async def _run(self, lane: Lane, job: Job) -> Outcome:
        """Run a job in the worker thread, and say so while it does not come back."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        running = loop.run_in_executor(self._host.executor, lane.worker.run, job)
        patience_s = self._settings.stuck_after_s
        while True:
            done, _ = await asyncio.wait({running}, timeout=patience_s)
            if done:
                return running.result()
            lane.report.stuck(loop.time() - started)
            patience_s *= 2

    async def _try(self, lane: Lane) -> Applied | BackendError:
        """Write what waits, again if it was refused for a reason that may pass."""
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            outcome = await self._do(lane, Job(lane.take(), look=False, takes=True))
            match outcome:
                case Written(applied=applied):
                    return applied
                case Refused(error=error) if attempt == _ATTEMPTS_ONCE or not error.transient:
                    return error
                case Refused() | Polled():
                    await asyncio.sleep(lane.next_at() - clock())

    def _announce(self) -> None:
        """Say, once, that every family was tried."""
        if not self._ready and all(lane.settled for lane in self._lanes.values()):
            self._ready = True
            self._hooks.ready(self.status())


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait for a task to end, however often we are told to hurry: a write must not be cut off."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
