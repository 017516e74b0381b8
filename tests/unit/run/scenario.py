"""An agent on fake kernels in virtual time, and what a test may do to it."""

import asyncio
import contextlib

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from kproxy.run.loop.agent import Agent, Hooks, Host
from kproxy.run.loop.settings import LoopSettings
from tests.support.memory import Kernel, Memory
from tests.unit.run.virtual import Slow

SETTINGS = LoopSettings(min_interval_s=1.0, sync_period_s=30.0)
WORK_S = 0.2


def now():
    return asyncio.get_running_loop().time()


class Timed(Memory):
    """Notes when each call was made."""

    def __init__(self, family, kernel, faults=None):
        super().__init__(family, kernel, faults)
        self.commits = []
        self.reads = []

    def commit(self, changes):
        self.commits.append(now())
        super().commit(changes)

    def observe(self):
        self.reads.append(now())
        return super().observe()


class Source:
    """Batches that a test pushes."""

    def __init__(self):
        self._queue = asyncio.Queue()

    def push(self, *batches):
        for batch in batches:
            self._queue.put_nowait(tuple(batch))

    def fail(self, error):
        self._queue.put_nowait(error)

    async def batches(self):
        while True:
            batch = await self._queue.get()
            if isinstance(batch, StopAsyncIteration):
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch


class Scenario:
    """Everything that `running` set up."""

    def __init__(self, backends, kernels, executors, *, hooks, settings):
        self.kernels = kernels
        self.backends = {backend.family: backend for backend in backends}
        self.source = Source()
        self.compiler = Compiler(Settings(node_name="node"))
        self.agent = Agent(
            self.compiler,
            backends,
            settings,
            host=Host(executors, lambda family: (), lambda: 0.0, now),
            hooks=hooks,
        )

    def status(self, family):
        return next(each for each in self.agent.status() if each.family is family)

    def is_true(self, family):
        """Say whether the kernel holds the compiled table of a family, and no more."""
        rendered = Memory(family, Kernel()).render(self.compiler.tables[family].everything())
        wanted = {key: value for key, value in rendered.items() if value is not None}
        return Memory(family, self.kernels[family]).observe() == wanted

    def all_true(self):
        return all(self.is_true(family) for family in self.backends)


def scenario(
    *,
    faults=None,
    kind=Timed,
    work_s=WORK_S,
    slow=None,
    hooks=None,
    kernels=None,
    settings=SETTINGS,
):
    """An agent that does not run yet; `faults` are a Memory's, for each family that has any.

    A job takes `work_s`, and what `slow` says for a family that it names.
    """
    kernels = kernels or {family: Kernel() for family in Family}
    backends = [kind(family, kernels[family], (faults or {}).get(family)) for family in Family]
    takes_s = dict.fromkeys(Family, work_s) | (slow or {})
    executors = {family: Slow(takes_s[family], at_once={"tend", "close"}) for family in Family}
    return Scenario(backends, kernels, executors, hooks=hooks or Hooks(), settings=settings)


@contextlib.asynccontextmanager
async def running(**kwargs):
    """An agent that runs until the end of the block, and then stops without an error."""
    made = scenario(**kwargs)
    task = asyncio.create_task(made.agent.run(made.source.batches()))
    try:
        yield made
    finally:
        made.agent.stop()
        await task
