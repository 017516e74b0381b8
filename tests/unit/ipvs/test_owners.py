"""Whose a virtual server is: nothing of others is touched, and nothing that serves is lost."""

import ipaddress

import pytest

from backends.ipvs.driver.servers import raw_server
from backends.ipvs.render.entries import member_key, place_of, server_key
from backends.ipvs.render.marks import FIRST_MARK
from backends.ipvs.render.sets import SetKind
from backends.kernel.virtual_servers import Server
from kproxy.core.addresses import Family
from kproxy.core.image import Changes
from kproxy.ports.data_path import BackendError
from tests.support.ipvs.owners import owners

SERVER = Server(Family.IPV4, 6, bytes([10, 96, 0, 7]), 80)
OTHER = SERVER._replace(port=81)
RAW, OTHER_RAW = raw_server(SERVER), raw_server(OTHER)
BOTH = {RAW: SERVER, OTHER_RAW: OTHER}
STAYS = r"the virtual server 10.96.0.7:80 TCP is somebody else's, and stays so$"


def everybodys(of):
    return True


def puts(*keys):
    return Changes(dict.fromkeys(keys, b""), frozenset())


def test_one_of_others_stays_theirs_whatever_our_sets_come_to_say():
    known = set()
    found = owners(known.__contains__)
    found.sort({RAW: SERVER})
    known.add(RAW)
    found.sort({RAW: SERVER})
    assert found.ours == set()
    assert found.taken() == {place_of(RAW)}


def test_one_of_others_goes_with_them():
    found = owners()
    found.sort({RAW: SERVER})
    found.look_again(lambda raw: False)
    assert found.taken() == set()
    assert found.unclaimed(puts(server_key(RAW))) == {RAW}


@pytest.mark.parametrize(
    "key",
    [
        server_key(RAW),
        member_key(SetKind.CLUSTER_IP, RAW),
        member_key(SetKind.CLUSTER_POLICY, RAW),
        member_key(SetKind.LOCAL_POLICY, RAW),
    ],
)
def test_nothing_is_put_where_somebody_else_has_one(key):
    found = owners()
    found.sort({RAW: SERVER})
    with pytest.raises(BackendError, match=STAYS):
        found.unclaimed(puts(key))
    assert found.unclaimed(puts(server_key(OTHER_RAW))) == {OTHER_RAW}


def test_one_that_came_since_the_last_reading_is_not_ours_when_ours_cannot_be_made():
    found = owners(lambda raw: raw == OTHER_RAW)
    found.sort({})
    assert found.unclaimed(puts(server_key(RAW), server_key(OTHER_RAW))) == {RAW}
    with pytest.raises(BackendError, match=STAYS):
        found.made(BOTH, {RAW})
    assert found.ours == {OTHER_RAW}
    assert found.taken() == {place_of(RAW)}


def test_several_are_counted():
    found = owners()
    found.sort(BOTH)
    with pytest.raises(BackendError, match=r"10.96.0.7:80 TCP .*, and stays so, as do 1 more"):
        found.unclaimed(puts(*map(server_key, BOTH)))


def test_kube_proxys_are_let_alone_until_our_rules_are_in_force_save_where_a_service_is():
    """Also those whose place we have in our sets: a write may have ended half-way."""
    wanted = {RAW}
    found = owners(everybodys, wanted=wanted.__contains__, made_by_kube_proxy=everybodys)
    found.sort(BOTH)
    assert found.ours == {RAW}
    wanted.clear()  # while it is tried without, for that something was refused
    found.sort(BOTH)
    assert found.ours == set()
    assert found.taken() == set()
    assert not found.unclaimed(puts(*map(server_key, BOTH))), "they may be ours at any time"
    found.made([RAW], ())
    assert found.inherited() == [OTHER]
    assert found.ours == {RAW, OTHER_RAW}
    found.sort(BOTH)
    assert found.ours == {RAW, OTHER_RAW}


def test_in_excluded_networks_kube_proxys_are_ours_where_a_service_is_and_else_stay():
    found = owners(
        wanted={RAW}.__contains__,
        made_by_kube_proxy=everybodys,
        excluded=[ipaddress.ip_network("10.96.0.0/16")],
    )
    found.sort(BOTH)
    assert found.ours == {RAW}
    assert not found.unclaimed(puts(*map(server_key, BOTH))), "a Service may come there"
    assert found.inherited() == []
    found.sort(BOTH)
    assert found.ours == {RAW}
    assert found.taken() == {place_of(OTHER_RAW)}, "from now on nobody knows whose it is"


def test_what_leaves_stays_ours_though_the_kernel_left_it_out_or_kube_proxy_had_its_address():
    found = owners(leaving=[RAW], made_by_kube_proxy=everybodys)
    assert found.sort({OTHER_RAW: OTHER}) == {RAW}
    assert found.ours == {RAW}
    assert found.sort(BOTH) == set()
    assert found.ours == {RAW}
    assert found.inherited() == [OTHER]


def test_one_of_others_is_not_ours_for_a_write_that_ended_before_it_was_made():
    leaving = []
    found = owners(leaving=leaving)
    found.sort({RAW: SERVER})
    leaving.append(RAW)
    assert found.sort({RAW: SERVER}) == found.sort({}) == set()
    assert found.ours == set()


def test_what_we_made_is_ours_until_it_is_gone():
    found = owners()
    found.made([RAW], ())
    found.sort({RAW: SERVER})
    assert found.ours == {RAW}
    found.gone([RAW])
    found.sort({RAW: SERVER})
    assert found.taken() == {place_of(RAW)}


def test_marks_that_others_have_are_no_place():
    found = owners()
    marked = Server(Family.IPV4, mark=FIRST_MARK - 1)
    found.sort({raw_server(marked): marked})
    assert found.taken() == set()
    assert found.ours == set()
