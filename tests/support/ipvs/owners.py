"""Whose virtual servers are, as tests of the driver decide it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from backends.ipvs.driver.owners import Owners
from backends.kernel.virtual_servers import Server
from kproxy.core.addresses import Network


class Memory:
    """What an earlier run remembered: whether one is ours, and which were leaving."""

    def __init__(self, owns: Callable[[bytes], bool], leaving: Collection[bytes] = ()) -> None:
        self.owns = owns
        self._leaving = leaving

    def leaving(self) -> Collection[bytes]:
        """Return those that were leaving."""
        return self._leaving


def nobodys(of: object) -> bool:
    """Tell that it is not."""
    return False


def owners(
    owns: Callable[[bytes], bool] = nobodys,
    *,
    leaving: Collection[bytes] = (),
    wanted: Callable[[bytes], bool] = nobodys,
    made_by_kube_proxy: Callable[[Server], bool] = nobodys,
    excluded: Collection[Network] = (),
) -> Owners:
    """Return who owns what; nobody owns anything, unless it is told."""
    return Owners(
        Memory(owns, leaving),
        wanted=wanted,
        left_by_kube_proxy=lambda: made_by_kube_proxy,
        excluded=excluded,
    )
