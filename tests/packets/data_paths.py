"""The data paths that the packet table is run against."""

from __future__ import annotations

import functools
from collections.abc import Callable

from backends.iptables.driver import IptablesBackend
from backends.iptables.render import Renderer
from backends.iptables.rules import Options
from backends.iptables.tools import Variant
from kproxy.backend import Backend
from kproxy.core.addresses import Family
from tests.net.namespace import Namespace

# Called, and its result used, by a thread that has entered the node's namespace.
DataPath = Callable[[Namespace, Family], Backend]


def _iptables(variant: Variant, _node: Namespace, family: Family) -> Backend:
    renderer = Renderer(family, Options(counts=True))
    return IptablesBackend(family=family, variant=variant, renderer=renderer)


DATA_PATHS: dict[str, DataPath] = {
    f"iptables-{variant.value}": functools.partial(_iptables, variant) for variant in Variant
}
