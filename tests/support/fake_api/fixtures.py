"""Fixtures of the suites that run against a fake and against a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fake_api.servers import FakeServer, RealServer, Server
from tests.support.fake_api.tls import Authority

_AUTHORITY = pytest.StashKey[Authority]()


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A fake API server without any objects of ours."""
    stash = request.config.stash
    if _AUTHORITY not in stash:
        stash[_AUTHORITY] = Authority()  # making keys takes a while, and one authority will do
    server = FakeServer(stash[_AUTHORITY])
    yield server
    server.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An API server without any objects of ours: the fake one, then the real one."""
    if request.param == "fake":
        yield request.getfixturevalue("fake")
        return
    real = RealServer(request.getfixturevalue("control_plane"))
    yield real
    real.close()
