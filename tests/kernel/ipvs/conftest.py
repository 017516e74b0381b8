"""What needs the kernel's ipvs runs where that is: on most machines in the virtual one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

_NEEDING = {Path(__file__).with_name(name) for name in ("test_servers.py", "test_settings.py")}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot do: `tests/vm` selects it."""
    if Path("/proc/net/ip_vs").exists():
        return
    left_out = [item for item in items if item.path in _NEEDING]
    items[:] = [item for item in items if item.path not in _NEEDING]
    config.hook.pytest_deselected(items=left_out)
