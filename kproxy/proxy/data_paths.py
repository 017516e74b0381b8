"""Data paths by name. Only here and in `host` is anything of `backends` imported."""

from __future__ import annotations

import importlib
from typing import Protocol

from kproxy.config.fields import Configuration
from kproxy.core.addresses import Family
from kproxy.core.settings import Mode
from kproxy.core.table import ForwardingTable, NodeRules
from kproxy.ports.data_path import Backend, Finding

# Listing a data path here does not import it.
DATA_PATHS = {Mode.IPTABLES: "backends.iptables.path:IptablesPath"}


class NotAvailable(Exception):
    """The data path does not exist in this version; the text names those that do."""


class DataPath(Protocol):
    """What a data path offers around its Backend.

    Any method but `preview` may raise BackendError.
    """

    def __init__(self, configuration: Configuration) -> None: ...

    def backend(self, family: Family) -> Backend:
        """Return the data path of a family."""

    def prepare(self, family: Family, rules: NodeRules) -> int:
        """Set what only a privileged process may, for one that has CAP_NET_ADMIN alone.

        Rules of an earlier run stay as they are. Returns how many kernel objects were missing.
        """

    def in_force(self, family: Family) -> None:
        """Remove what would contradict a family's rules, now that the kernel holds them.

        That is what an earlier run left elsewhere and, if the configuration says so, what
        kube-proxy left, in every mode of its.
        """

    def preview(self, table: ForwardingTable) -> str:
        """Return what would be programmed for a table."""

    def check(self, family: Family) -> list[Finding]:
        """Return what this host offers to it."""

    def clean_up(self, family: Family) -> int:
        """Remove everything of ours; return how many kernel objects there were."""


def data_path(configuration: Configuration) -> DataPath:
    """Return the data path that a configuration names. Raises NotAvailable."""
    place = DATA_PATHS.get(configuration.mode)
    if place is None:
        available = ", ".join(mode.value for mode in DATA_PATHS)
        raise NotAvailable(
            f"proxy mode {configuration.mode.value} is not available yet in this version; "
            f"available: {available}"
        )
    module, _, name = place.partition(":")
    made: DataPath = getattr(importlib.import_module(module), name)(configuration)
    return made
