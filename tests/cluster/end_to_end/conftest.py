"""A place for each test, in both variants of iptables."""

from __future__ import annotations

import pytest

from tests.support.cluster.place import Place


@pytest.fixture(params=["nft", "legacy"])
def variant(request):
    return request.param


@pytest.fixture
def place(tmp_path, variant, control_plane):
    place = Place(tmp_path / "place", variant, control_plane)
    yield place
    place.close()
