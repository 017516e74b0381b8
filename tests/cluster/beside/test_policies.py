"""Beside a policy engine kproxy gives the verdicts that kube-proxy gives there."""

from __future__ import annotations

import pytest

from tests.support.cluster.place import Place
from tests.support.net.plan import CLIENT, NODE, POD1, POD2, POD3
from tests.support.node import policies
from tests.support.node.cluster import both
from tests.support.packets.objects import port

pytestmark = [pytest.mark.kernel, pytest.mark.cluster]

SHOP = (
    *both("closed", "10.96.0.40", POD1, ports=(port(80, node_port=30040),)),
    *both("open", "10.96.0.41", POD2, ports=(port(80, node_port=30041),)),
)
FRONTENDS = ("10.96.0.40:80", f"{NODE}:30040", "10.96.0.41:80", f"{NODE}:30041")
SOURCES = (CLIENT, POD2, POD3, NODE)


@pytest.fixture(params=["nft", "legacy"])
def place(request, tmp_path, plane):
    place = Place(tmp_path / "place", request.param, plane)
    place.apply(SHOP)
    policies.close(place.node, POD1)
    yield place
    place.close()
    place.delete(SHOP)


@pytest.fixture
def theirs(place, start_original):
    """What kube-proxy does with each packet when the engine has put itself first again."""
    original = start_original(place)
    policies.go_first(place.node)
    verdicts = place.node.ask(FRONTENDS, sources=SOURCES)
    assert POD1 not in verdicts.values()
    assert POD2 in verdicts.values()
    original.stop()
    return verdicts


def test_after_a_take_over(place, theirs):
    place.ready()
    assert place.node.ask(FRONTENDS, sources=SOURCES) == theirs


def test_after_a_start(place, theirs, tmp_path, plane):
    other = Place(tmp_path / "other", place.node.variant, plane)
    try:
        policies.close(other.node, POD1)
        other.ready()
        assert other.node.ask(FRONTENDS, sources=SOURCES) == theirs
    finally:
        other.close()
