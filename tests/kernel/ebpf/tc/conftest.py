"""A node with the tc programs; each test finds it without frontends and flows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.core.addresses import Family
from tests.support.ebpf.scene import Scene, as_is


@pytest.fixture(scope="module")
def whole_scene(bytecode: Path) -> Iterator[Scene]:
    """Both families are served on it."""
    made = Scene(as_is(bytecode))
    yield made
    made.close()


@pytest.fixture
def scene(whole_scene: Scene) -> Iterator[Scene]:
    """It knows no Service, and nobody has spoken yet."""
    yield whole_scene
    whole_scene.forget()


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in turn."""
    return request.param
