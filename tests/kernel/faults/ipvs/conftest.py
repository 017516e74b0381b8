"""Traffic through every kind of frontend that mode ipvs has. Left out where the kernel has none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.ipvs.on_node import IS_HERE
from tests.support.net.plan import CLIENT, NODE, POD3
from tests.support.node.node import IPVS, Node
from tests.support.node.web import EVERY_FRONTEND, LOCAL_FRONTENDS, web_everywhere, web_locally

_HERE = Path(__file__).parent

PROTOCOLS = (Protocol.TCP, Protocol.UDP)
# Each frontend from each source, by one protocol or the other over one family or the other.
EVERY_WAY = [
    (source, frontend, PROTOCOLS[number % 2], tuple(Family)[number // 2 % 2])
    for number, (frontend, source) in enumerate(
        itertools.product((*EVERY_FRONTEND, *LOCAL_FRONTENDS), (CLIENT, POD3, NODE))
    )
]


def serve(node: Node, *pods: str) -> None:
    """Let these pods be what is behind every frontend, of both policies."""
    node.manifests.put("web", web_everywhere(*pods))
    node.manifests.put("web-locally", web_locally(*pods))


@pytest.fixture
def variant():
    """The data path that a node begins with."""
    return IPVS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot do: `tests/vm` selects it."""
    if not IS_HERE:
        left_out = [item for item in items if item.path.is_relative_to(_HERE)]
        items[:] = [item for item in items if not item.path.is_relative_to(_HERE)]
        config.hook.pytest_deselected(items=left_out)
