"""From the data path of an earlier run to the one in use, without a connection lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError, DataPath, Former

log = logging.getLogger(__name__)

# A look at many connections costs 25 ms, so this is 0.5 % of a processor's time at most.
_ASK_EVERY_S = 5.0


class Handover:
    """Ends what earlier runs used: no new connections once ours are in force, then all of it.

    An open connection that never ends keeps it: what is left then serves that one alone, and
    costs the others next to nothing.
    """

    def __init__(self, former: Callable[[Family], Iterable[Former]], executor: Executor) -> None:
        self._former = former
        self._executor = executor
        self._waiting: dict[Family, list[Former]] = {}
        self._begun: set[Family] = set()
        self._complaints: dict[Family, str] = {}

    def begin(self, family: Family) -> None:
        """Let no other data path take new connections of a family, as ours is in force.

        Blocks, in any thread. Raises BackendError, and is to be called again then; after a success
        another call does nothing.
        """
        if family in self._begun:
            return
        if family not in self._waiting:
            self._waiting[family] = list(self._former(family))
        self._ask(family)
        for each in self._waiting[family]:
            log.info(
                "%s: %s takes no new connections; a running kproxy removes it when open ones end",
                family.value,
                each.name,
            )
        self._begun.add(family)  # from now on `run` asks, and nobody else

    async def run(self) -> None:
        """Ask those that are left time and again, apart from all else, and remove them then.

        Until cancelled; what is being removed then is removed before this ends, as another kproxy
        may write afterwards.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(_ASK_EVERY_S)
                for family in tuple(self._begun):
                    if self._waiting[family]:
                        await loop.run_in_executor(self._executor, self._ask_and_tell, family)
        finally:
            self._executor.shutdown()

    def _ask_and_tell(self, family: Family) -> None:
        try:
            self._ask(family)
        except BackendError as error:
            complaint = str(error)
            if complaint != self._complaints.get(family):
                again = f"trying again every {_ASK_EVERY_S:.0f} s"
                log.warning("%s: what kproxy used before stays: %s; %s", family.value, error, again)
            self._complaints[family] = complaint

    def _ask(self, family: Family) -> None:
        """Ask each that is left. Raises the first BackendError, after all were asked."""
        failure: BackendError | None = None
        for each in tuple(self._waiting[family]):
            try:
                self._let_go(family, each)
            except BackendError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _let_go(self, family: Family, each: Former) -> None:
        if not each.withdraw():
            return
        removed = each.clean_up()
        self._waiting[family].remove(each)
        if removed:
            log.info(
                "%s: removed %d objects of %s, which served before",
                family.value,
                removed,
                each.name,
            )


def end_others(family: Family, handover: Handover, path: DataPath) -> None:
    """End what else would decide about a family's packets, now that `path` holds its rules.

    What an earlier run used and what kube-proxy left go apart: neither waits for the other.
    Raises BackendError, and is to be called again then.
    """
    try:
        handover.begin(family)
    finally:
        path.in_force(family)
