"""A thread for each family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from kproxy.core.addresses import Family


@contextmanager
def family_threads(families: Iterable[Family]) -> Iterator[Mapping[Family, Executor]]:
    """Give each family a thread; at the end, wait until they have done all that was asked."""
    with ExitStack() as threads:
        yield {
            family: threads.enter_context(ThreadPoolExecutor(1, f"kernel {family.value}"))
            for family in families
        }
