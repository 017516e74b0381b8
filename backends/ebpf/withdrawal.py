"""The programs of an earlier run, which stay for open connections alone."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from backends.ebpf import cleanup, places
from backends.ebpf.driver import loader
from backends.ebpf.driver.device_layout import HostFlag
from backends.ebpf.driver.forwarding import ForwardingRule
from backends.ebpf.driver.host import HostSettings
from backends.ebpf.driver.sweep import Sweep
from backends.ebpf.render.layout import TableMap
from backends.kernel.bpf.maps import Map
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

_BUDGET_S = 0.05  # of each call, which comes every five seconds


class FormerPrograms:
    """One family's programs, which this process does not use."""

    def __init__(self, family: Family, root: Path) -> None:
        self._family = family
        self._root = root
        self._maps: dict[str, Map] | None = None
        self._passing: ForwardingRule | None = None
        self._sweep: Sweep | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return "ebpf"

    def withdraw(self) -> bool:
        """Take no new connections; say whether no open one needs the programs any more.

        Nobody else lets flows expire now, so that is done here: a part of them at each call.
        Raises BackendError.
        """
        if self._maps is None:
            if not cleanup.is_here(self._family, self._root):
                return True
            self._maps = self._opened()
            self._take_no_more()
            mark = HostSettings(self._maps["host"]).read().mark
            self._passing = ForwardingRule(self._family, mark) if mark else None
        self._let_pass()
        if self._sweep is None:
            self._sweep = Sweep(self._maps)
        if self._sweep.tend(_BUDGET_S):
            return False
        left, self._sweep = self._sweep.flows, None
        return left == 0

    def clean_up(self) -> int:
        """Remove what is left; return how many kernel objects. Raises BackendError."""
        if not cleanup.is_here(self._family, self._root):
            return 0
        if self._maps is not None:
            for each in self._maps.values():
                each.close()
            self._maps = None
        return cleanup.clean_up(self._family, self._root)

    def _opened(self) -> dict[str, Map]:
        names = ("host", "flows", "clients", *(each.map_name for each in TableMap))
        found = {name: loader.published_map(self._root, self._family, name) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    def _let_pass(self) -> None:
        """Let what programs translate pass before rules of whoever serves new connections now.

        The kernel may track none of it yet, and those drop as invalid what begins with its end.
        """
        try:
            if self._passing is not None and self._passing.missing():
                self._passing.ensure()
        except BackendError as error:
            log.warning("%s: %s; going on without", self._family.value, error)

    def _take_no_more(self) -> None:
        """Let new connections pass, for whoever serves them now, and forget all Services.

        The marker goes first: what a start finds without it is written anew.
        """
        assert self._maps is not None
        marker = places.in_force(self._root, self._family)
        with contextlib.suppress(FileNotFoundError):
            marker.rmdir()
        HostSettings(self._maps["host"]).set(HostFlag.WITHDRAWN, on=True)
        for each in TableMap:
            if each is not TableMap.TABLE_RULES:
                self._maps[each.map_name].delete_many(list(self._maps[each.map_name].keys()))
