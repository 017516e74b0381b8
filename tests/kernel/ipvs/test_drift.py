"""What others change of ours is noticed, whichever kind of object it is, and put right."""

import pytest

from backends.ipvs.driver import servers_watch
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.kernel.iptables.test_contract import IptablesRig
from tests.kernel.ipvs.test_contract import MEDDLINGS, IpvsRig
from tests.support.contract import Follower, assert_holds
from tests.support.tables import some_tables

pytestmark = pytest.mark.kernel


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def rig(namespace, family):
    rig = IpvsRig(IptablesRig(family, Variant.NF_TABLES), Variant.NF_TABLES)
    yield rig
    rig.close()


def test_each_kind_of_object_is_watched(rig, family, subtests, monkeypatch):
    monkeypatch.setattr(servers_watch, "_LOOK_EVERY_S", 0.0)
    table = some_tables(family)[5]
    backend = rig.backend()
    follower = Follower(backend)
    follower.apply(table)
    for meddling in MEDDLINGS:
        with subtests.test(msg=meddling.__name__):
            assert not backend.disturbed()
            meddling(rig)
            assert backend.disturbed()
            assert follower.reconciler.audit().repaired
    assert_holds(rig, table)
