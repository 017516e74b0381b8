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
from typing import TypeVar

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.store import Change, Difference
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import Backend, BackendError
from kproxy.run.loop.lane import Lane
from kproxy.run.loop.reconcile import Applied
from kproxy.run.loop.settings import LoopSettings
from kproxy.run.loop.status import FamilyStatus
from kproxy.run.loop.tending import TEND_BUDGET_S
from kproxy.run.loop.worker import Job, Outcome, Polled, Refused, Tended, Worker, Written

_Result = TypeVar("_Result")

# Attempts of one family that is refused: for a reason that may pass, and for one that may not. The
# second one leaves out what is to blame.
_ATTEMPTS_ONCE = 3
_ATTEMPTS_IN_VAIN = 2


class SourceEnded(Exception):
    """The source of changes stopped without an error: nothing would be followed any more."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the loop needs of the world around it.

    - `executors`: one for each family, of a single thread, that outlives the agent. Everything
      that blocks runs there, so that no family waits for what blocks another.
    - `local_addresses` returns the node's addresses now, canonical; it runs in those threads and
      may raise BackendError.
    - `random` returns numbers from 0 to 1.
    - `clock` measures in those threads how long something takes, in seconds.
    """

    executors: Mapping[Family, Executor]
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
    - `began`, `done`: of each job of each family, before and after it runs; tending is none.
    - `compiled`: changes were compiled; the tables are up to date, the kernel is not yet.
    - `first_commit`: the kernel holds a family's rules for the first time. Runs in the family's
      thread, at the same time as another's, may raise BackendError, and is then called again later.
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

    Compiling happens in the event loop, everything that blocks in a thread for each family, one
    job at a time. Each family has its own pace: one that the kernel refuses backs off alone. There
    is a backend for each family that `compiler` compiles; it is closed at the end.
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

    def status(self) -> tuple[FamilyStatus, ...]:
        """Return how every family is doing."""
        return tuple(lane.status for lane in self._lanes.values())

    def stop(self) -> None:
        """Let `run` return as soon as the writes in flight are done. The rules stay."""
        self._stopping = True
        for lane in self._lanes.values():
            lane.woken.set()

    async def run(self, batches: AsyncIterator[tuple[Change, ...]]) -> None:
        """Follow `batches` until `stop`.

        Writes in flight are finished before this returns, raises or is cancelled. Raises what the
        source raised, and SourceEnded if it just ended.
        """
        follower = asyncio.create_task(self._follow(batches), name="follow the source")
        servers = [
            asyncio.create_task(self._serve(lane), name=f"serve {family.value}")
            for family, lane in self._lanes.items()
        ]
        tasks = [*servers, follower]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop()
            follower.cancel()
            for task in tasks:
                await _end_of(task)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def once(
        self, batches: AsyncIterator[tuple[Change, ...]]
    ) -> dict[Family, Applied | BackendError]:
        """Bring the kernel up to date with the first complete state, and say how it went.

        Raises SourceEnded if the source ends before Services and EndpointSlices were listed.
        """
        async for batch in batches:
            self.take(batch)
            if self._compiler.ready:
                break
        else:
            raise SourceEnded("the source ended before it listed Services and EndpointSlices")
        lanes = self._lanes.values()
        outcomes = await asyncio.gather(*(self._once(lane) for lane in lanes))
        return dict(zip(self._lanes, outcomes, strict=True))

    def take(self, batch: tuple[Change, ...]) -> None:
        """Compile a batch and queue what it changes; for the event loop.

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
        self._hooks.compiled(changed)

    def _worker(self, backend: Backend) -> Worker:
        return Worker(
            backend,
            local_addresses=partial(self._host.local_addresses, backend.family),
            after_first_commit=partial(self._hooks.first_commit, backend.family),
            clock=self._host.clock,
        )

    async def _follow(self, batches: AsyncIterator[tuple[Change, ...]]) -> None:
        async for batch in batches:
            self.take(batch)
            await asyncio.sleep(0)  # a source with much to say must not keep the writer waiting
        raise SourceEnded("the source of Services and EndpointSlices ended")

    async def _serve(self, lane: Lane) -> None:
        """Do whatever is due in one family until told to stop, then close its data path."""
        clock = asyncio.get_running_loop().time
        try:
            while not self._stopping:
                now = clock()
                if lane.next_at() > now:
                    await self._sleep(lane, lane.next_at() - now)
                elif lane.is_due(now):
                    await self._do(lane, lane.next_job(now))
                    self._announce()
                else:
                    await self._tend(lane)
        finally:
            await self._close(lane)

    async def _sleep(self, lane: Lane, wait_s: float) -> None:
        """Wait until the time has passed, or something may be due sooner."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                await lane.woken.wait()
        lane.woken.clear()

    async def _once(self, lane: Lane) -> Applied | BackendError:
        try:
            outcome = await self._try(lane)
            if isinstance(outcome, Applied):
                while await self._tend(lane):
                    pass
            return outcome
        finally:
            await self._close(lane)

    async def _close(self, lane: Lane) -> None:
        lane.close()
        await self._run(lane, lane.worker.close)

    async def _do(self, lane: Lane, job: Job) -> Outcome:
        """Do a job and tell everybody how it went."""
        clock = asyncio.get_running_loop().time
        started = clock()
        self._hooks.began(lane.family, job)
        outcome = await self._run(lane, partial(lane.worker.run, job))
        ended = clock()
        lane.finished(job, outcome, started=started, now=ended)
        self._hooks.done(Ended(lane.family, job, outcome, ended - started))
        return outcome

    async def _tend(self, lane: Lane) -> bool:
        """Let the data path look after itself for a moment; return whether it has more to do."""
        lane.tending()
        outcome = await self._run(lane, partial(lane.worker.tend, TEND_BUDGET_S))
        lane.tended(outcome, asyncio.get_running_loop().time())
        return isinstance(outcome, Tended) and outcome.more

    async def _run(self, lane: Lane, work: Callable[[], _Result]) -> _Result:
        """Run something in the family's thread, and say so while it does not come back."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        running = loop.run_in_executor(self._host.executors[lane.family], work)
        patience_s = self._settings.stuck_after_s
        while True:
            done, _ = await asyncio.wait({running}, timeout=patience_s)
            if done:
                return running.result()
            lane.report.stuck(loop.time() - started)
            patience_s *= 2

    async def _try(self, lane: Lane) -> Applied | BackendError:
        """Write what waits, again if it was refused: for the moment, or for some of it."""
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            outcome = await self._do(lane, Job(lane.take(), look=False, takes=True))
            match outcome:
                case Written(applied=applied):
                    return applied
                case Refused(error=error) if attempt == (
                    _ATTEMPTS_ONCE if error.transient else _ATTEMPTS_IN_VAIN
                ):
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
