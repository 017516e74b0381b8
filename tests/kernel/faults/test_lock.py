"""Somebody else holds the lock of the legacy variant."""

from __future__ import annotations

import fcntl

import pytest

from tests.support.net.plan import POD1, POD2
from tests.support.node.cluster import both
from tests.support.node.node import STEM
from tests.support.node.tools import IMPATIENT
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel


OLD = {"10.96.0.20:80": frozenset({POD1})}
NEW = {"10.96.0.20:80": frozenset({POD2})}


@pytest.fixture
def proxy(node):
    node.manifests.put("web", both("web", "10.96.0.20", POD1))
    return node.ready()


@pytest.fixture
def held(node, proxy):
    """The lock, held until it is closed."""
    with node.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@pytest.mark.parametrize("variant", ["legacy"], indirect=True)
def test_the_old_answers_stay_and_the_change_is_applied_when_the_lock_is_free(node, proxy, held):
    for stem in STEM.values():
        node.tools.always(stem, IMPATIENT)
    node.manifests.put("web", both("web", "10.96.0.20", POD2))
    proxy.wait_for("the kernel refused")
    assert node.answers(OLD) == []

    held.close()
    until(lambda: node.answers(NEW) == [], within_s=LONGEST_S, what="both families follow")


@pytest.mark.parametrize("variant", ["nft"], indirect=True)
def test_the_other_variant_needs_no_lock(node, proxy, held):
    node.manifests.put("web", both("web", "10.96.0.20", POD2))
    until(lambda: node.answers(NEW) == [], within_s=LONGEST_S, what="both families follow")
    assert "refused" not in proxy.said()
