"""What needs the kernel's ipvs runs where that is: on most machines in the virtual one alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.iptables.applied import run
from tests.support.net.namespace import Namespace

_HERE = Path(__file__)
_NEEDING = ("test_check.py", "test_servers.py", "test_settings.py", "test_steering.py")
_WITHOUT = ("test_without.py",)


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
    names = _WITHOUT if Path("/proc/net/ip_vs").exists() else _NEEDING
    impossible = {_HERE.with_name(name) for name in names}
    left_out = [item for item in items if item.path in impossible]
    items[:] = [item for item in items if item.path not in impossible]
    config.hook.pytest_deselected(items=left_out)
