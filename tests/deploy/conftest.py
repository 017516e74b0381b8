"""A real control plane that notes who asks for what, shared by these tests and clean for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.rights import POLICY, Audit
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.leftovers import remove_leftovers
from tests.support.ipvs.on_node import IS_HERE


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs the kernel's ipvs where that is not: `tests/vm` selects it."""
    needing = Path(__file__).with_name("test_ipvs_privileges.py")
    left_out = [item for item in items if item.path == needing and not IS_HERE]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def _audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Path]]:
    folder = tmp_path_factory.mktemp("audited")
    policy, log = folder / "policy.json", folder / "audit.log"
    policy.write_text(json.dumps(POLICY))
    flags = (
        "--allow-privileged",
        "--feature-gates=WatchList=false",  # so that kproxy has to list
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log}",
    )
    with ControlPlane(folder / "control-plane", flags=flags) as plane:
        yield plane, log


@pytest.fixture
def plane(_audited: tuple[ControlPlane, Path]) -> Iterator[ControlPlane]:
    """A control plane that holds nothing but what it made itself."""
    plane, _ = _audited
    yield plane
    remove_leftovers(plane.api)


@pytest.fixture
def audit(_audited: tuple[ControlPlane, Path]) -> Audit:
    """What the API server of `plane` notes about ServiceAccounts from now on."""
    return Audit(_audited[1])
