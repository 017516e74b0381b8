"""What needs the kernel's ipvs runs where that is: on most machines in the virtual one alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.ipvs.driver.link import ServiceLink, SharedLink
from backends.kernel import dummy_links
from kproxy.core.addresses import Family
from tests.support.iptables.applied import run
from tests.support.ipvs.links import NODE, own
from tests.support.net.namespace import Namespace

_HERE = Path(__file__)
_ANYWHERE = ("test_link.py", "test_link_drift.py", "test_sets.py")
_WITHOUT = ("test_without.py",)
_IS_HERE = Path("/proc/net/ip_vs").exists()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Run the test in a network namespace of its own.

    Without any route the kernel takes no address for that of a destination.
    """
    made = Namespace("node")
    with made.entered():
        run("ip link set lo up")
        yield made
    made.close()


@pytest.fixture
def node_with_uplink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    """Run the test on a node of its own, with one address of each family.

    A kernel without dummy links has others that carry nothing by themselves.
    """
    made = Namespace("node")
    with made.entered():
        run("ip link set lo up")
        run("ip link add uplink type veth peer name far")
        run("ip link set uplink up")
        for family in Family:
            own(family, NODE[family])
        if subprocess.call(("ip", "link", "add", "tried", "type", dummy_links.KIND)):
            monkeypatch.setattr(dummy_links, "KIND", "ifb")
        else:
            run("ip link delete tried")
        yield made
    made.close()


@pytest.fixture
def shared() -> SharedLink:
    """The link that both families' objects of a test know."""
    return SharedLink()


@pytest.fixture
def service_link(shared: SharedLink) -> Iterator[Callable[[Family], ServiceLink]]:
    """A way to make one family's object, closed behind the test."""
    made: list[ServiceLink] = []

    def make(family: Family) -> ServiceLink:
        made.append(ServiceLink(family, shared))
        return made[-1]

    yield make
    for each in made:
        each.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot do: `tests/vm` selects it."""
    left_out = list(filter(_is_impossible, items))
    items[:] = [item for item in items if not _is_impossible(item)]
    config.hook.pytest_deselected(items=left_out)


def _is_impossible(item: pytest.Item) -> bool:
    if item.path.parent != _HERE.parent or item.path.name in _ANYWHERE:
        return False
    return _IS_HERE is (item.path.name in _WITHOUT)
