"""What needs the kernel's ipvs runs where that is: on most machines in the virtual one alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.iptables.applied import run
from tests.support.net.namespace import Namespace

_HERE = Path(__file__)
_ANYWHERE = ("test_link.py", "test_sets.py")
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot do: `tests/vm` selects it."""
    left_out = list(filter(_is_impossible, items))
    items[:] = [item for item in items if not _is_impossible(item)]
    config.hook.pytest_deselected(items=left_out)


def _is_impossible(item: pytest.Item) -> bool:
    if item.path.parent != _HERE.parent or item.path.name in _ANYWHERE:
        return False
    return _IS_HERE is (item.path.name in _WITHOUT)
