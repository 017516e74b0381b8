"""The folder of manifests vanishes while traffic goes on, and comes back."""

from __future__ import annotations

import shutil

import pytest

from tests.support.net.plan import POD1, POD2
from tests.support.node.cluster import both
from tests.support.waiting import LONGEST_S, holds, until

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("variant", ["nft"])]

LONG_ENOUGH_S = 0.7  # with so small an interval, a change is in force within a fraction of it
WEB = "10.96.0.20:80"
OLD, NEW = {WEB: frozenset({POD1})}, {WEB: frozenset({POD2})}


@pytest.fixture
def proxy(node):
    node.configure(iptables={"minSyncPeriod": "10ms"})
    node.manifests.put("web", both("web", "10.96.0.20", POD1))
    return node.ready()


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_forwarding_goes_on_and_what_comes_back_is_followed(node, proxy, how):
    folder = node.manifests.path
    elsewhere = node.folder / "elsewhere"
    if how == "renamed":
        folder.rename(elsewhere)
    else:
        shutil.copytree(folder, elsewhere)
        with proxy.held():  # files that go one by one are changes as long as the folder is there
            shutil.rmtree(folder)
    proxy.wait_for("error")
    holds(lambda: node.answers(OLD) == [], for_s=LONG_ENOUGH_S, what="forwarding goes on")
    assert proxy.process.poll() is None

    elsewhere.rename(folder)
    node.manifests.put("web", both("web", "10.96.0.20", POD2))
    until(lambda: node.answers(NEW) == [], within_s=LONGEST_S, what="the folder is followed")
