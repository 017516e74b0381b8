"""What others change of ours is noticed, whichever kind of object it is, and put right."""

import socket

import pytest

from backends.ipvs.driver import servers_watch
from backends.kernel.virtual_servers import Server, Settings, VirtualServers
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.kernel.iptables.test_contract import IptablesRig
from tests.kernel.ipvs import test_contract as meddlings
from tests.kernel.ipvs.test_contract import MEDDLINGS, IpvsRig
from tests.support.contract import Follower, assert_holds
from tests.support.net.namespace import Namespace
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


@pytest.mark.parametrize(
    "meddling",
    [meddlings.deletes_a_server, meddlings.deletes_a_destination, meddlings.changes_a_weight],
)
def test_virtual_servers_in_other_namespaces_hide_nothing(rig, family, monkeypatch, meddling):
    """Where there are some, the kernel leaves out some of ours when it prints them."""
    monkeypatch.setattr(servers_watch, "_LOOK_EVERY_S", 0.0)
    backend = rig.backend()
    follower = Follower(backend)
    follower.apply(some_tables(family)[5])
    every = [
        (Server(each, socket.IPPROTO_TCP, bytes([number]) * (each.bits // 8), 80), Settings("rr"))
        for each in Family
        for number in range(1, 200)
    ]
    other = Namespace("other")
    try:
        for count in (0, 10, 100, 398, 50, 398):
            with other.entered(), VirtualServers("making others'") as kernel:
                kernel.delete_servers(server for server, _ in every[count:])
                kernel.put_servers(every[:count])
            assert not backend.disturbed(), count
        meddling(rig)
        assert backend.disturbed()
        assert follower.reconciler.audit().repaired
        assert not backend.disturbed()
    finally:
        other.close()
