"""Every run has a lock of its own: the legacy tools' usual one is shared by all namespaces."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_lock(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        lock = tmp_path_factory.mktemp("lock") / "xtables.lock"
        patch.setenv("XTABLES_LOCKFILE", str(lock))
        yield
