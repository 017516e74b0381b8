"""One API server for all tests of a run, clean for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.leftovers import remove_leftovers

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def _control_plane_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as control_plane:
        yield control_plane


@pytest.fixture
def control_plane(_control_plane_of_the_run: ControlPlane) -> Iterator[ControlPlane]:
    """An API server that runs and holds nothing but what it made itself."""
    yield _control_plane_of_the_run
    _control_plane_of_the_run.recover()
    remove_leftovers(_control_plane_of_the_run.api)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A Namespace that only this test uses."""
    name = f"test-{next(_numbers)}"
    control_plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name
