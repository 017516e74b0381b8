"""A network namespace for each test."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.iptables.applied import Applied, run

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def namespace(tmp_path, monkeypatch) -> Iterator[None]:
    """Run the test in a new network namespace, with an xtables lock of its own."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if LIBC.unshare(CLONE_NEWNET):
        pytest.skip(f"no network namespaces: {os.strerror(ctypes.get_errno())}")
    try:
        run("ip link set lo up")
        yield
    finally:
        assert LIBC.setns(home, CLONE_NEWNET) == 0
        os.close(home)


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
def variant(request) -> Variant:
    return request.param


@pytest.fixture(params=list(Family), ids=lambda family: family.value)
def family(request) -> Family:
    return request.param


@pytest.fixture
def node(namespace, family, variant) -> Applied:
    """An empty node of one family and variant."""
    return Applied(family, variant)
