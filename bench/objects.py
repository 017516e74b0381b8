"""The objects of a cluster as the agent reads and compiles them, without an API server."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.cluster import NODE_NAME, POD_RANGE, Document
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.compile import Compiler
from kproxy.core.objects import KIND_OF, Kind, Object
from kproxy.core.parse import kind_of
from kproxy.core.settings import Settings
from kproxy.core.store import Replaced


def raw(document: Document) -> tuple[Kind, bytes]:
    """Return an object as it comes: its kind, and its JSON."""
    kind = kind_of(document)
    assert kind is not None
    return kind, json.dumps(document).encode()


def lists(objects: Sequence[Object]) -> list[Replaced]:
    """Return objects as the first lists of all kinds."""
    return [
        Replaced(kind, tuple(each for each in objects if KIND_OF[type(each)] is kind))
        for kind in Kind
    ]


def compiler() -> Compiler:
    """Return the compiler of the measured node, of IPv4, which knows no object yet."""
    settings = Settings(NODE_NAME, cluster_cidrs=(canonical_network(POD_RANGE),))
    return Compiler(settings, (Family.IPV4,))
