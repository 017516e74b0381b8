"""Nodes for tests, in both variants of iptables."""

from __future__ import annotations

import pytest

from kproxy.core.addresses import Family
from tests.support.node.node import Node


@pytest.fixture(params=["nft", "legacy"])
def variant(request):
    return request.param


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def node(tmp_path, variant):
    node = Node(tmp_path / "node", variant)
    yield node
    node.close()
