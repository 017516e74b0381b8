"""Time that passes only when nothing else is left to do, and executors that live in it."""

import asyncio
import selectors
from concurrent.futures import Executor, Future


class _NoWaiting(selectors.DefaultSelector):
    """Takes what is there, and moves the clock instead of waiting."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0

    def select(self, timeout=None):
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise AssertionError("every task waits for something that cannot happen")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self):
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.now

    def advance(self, seconds):
        """Let time pass inside a callback, as work that blocks would."""
        self._virtual.now += seconds


def run(main, *args):
    """Run `main(*args)` in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main(*args))


class Slow(Executor):
    """One worker whose every job ends `seconds` after it began; the loop goes on meanwhile.

    Calls of the functions `at_once` take no time.
    """

    def __init__(self, seconds, at_once=()):
        self._seconds = seconds
        self._at_once = at_once
        self._free_at = 0.0

    def submit(self, work, /, *args, **kwargs):
        loop = asyncio.get_running_loop()
        future = Future()
        called = getattr(work, "func", work).__name__
        seconds = 0.0 if called in self._at_once else self._seconds
        self._free_at = max(self._free_at, loop.time()) + seconds
        loop.call_at(self._free_at, _finish, future, lambda: work(*args, **kwargs))
        return future


def _finish(future, work):
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
