"""What every test may count on."""

from __future__ import annotations

import os

import pytest

pytest_plugins = [
    "tests.support.cluster.fixtures",
    "tests.support.ebpf.fixtures",
    "tests.support.extensions",
    "tests.support.parallel",
]


def pytest_configure(config: pytest.Config) -> None:
    """Set up the property tests, where there are any: to import Hypothesis takes a while."""
    if config.pluginmanager.hasplugin("hypothesispytest"):
        from tests.support.effort import whatever_it_takes

        whatever_it_takes()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a kernel to itself where there is no root."""
    if item.get_closest_marker("kernel") is not None and os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces and writes rules in them")


@pytest.fixture(scope="session", autouse=True)
def _lock_file_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep iptables-legacy from waiting for others on this machine.

    Its lock is one file for all network namespaces, but ours hold rules of their own.
    """
    os.environ["XTABLES_LOCKFILE"] = str(tmp_path_factory.mktemp("xtables") / "lock")
