"""The data paths that the packet table is run against."""

from __future__ import annotations

import functools
from collections.abc import Callable

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Backend
from tests.support.net.namespace import Namespace

# Called, and its result used, by a thread that has entered the node's namespace.
DataPath = Callable[[Namespace, Family], Backend]


def _iptables(variant: Variant, _node: Namespace, family: Family) -> Backend:
    renderer = Renderer(family, Options(counts=True))
    return IptablesBackend(
        family=family, variant=variant, renderer=renderer, transactions=Transactions()
    )


DATA_PATHS: dict[str, DataPath] = {
    f"iptables-{variant.value}": functools.partial(_iptables, variant) for variant in Variant
}
