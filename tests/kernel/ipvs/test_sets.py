"""The ipsets of ipvs mode in a kernel: they come back as they were written."""

from dataclasses import replace

import pytest

from backends.ipvs.driver.sets import Sets
from backends.ipvs.render.entries import (
    Place,
    marked_bytes,
    member_key,
    packed,
    place_bytes,
    server_key,
    split_member,
)
from backends.ipvs.render.marks import FIRST_MARK
from backends.ipvs.render.renderer import Surroundings
from backends.ipvs.render.sets import WITHOUT_SERVER, SetKind, set_name, sets
from backends.kernel.xtables.wording import set_key
from kproxy.core.addresses import Family, canonical_network
from kproxy.core.image import Changes, diff
from kproxy.core.objects import ObjectKey, Protocol
from kproxy.core.table import HealthCheck, Use, Via, Vip
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import address, changes, rules, run, service_port
from tests.support.ipvs.world import World

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
SOURCES = {
    Family.IPV4: ("198.51.100.0/24", "198.51.100.7/32", "0.0.0.0/1"),
    Family.IPV6: ("2001:db8:7::/48", "2001:db8:8::1/128", "8000::/1"),
}


def everything(family):
    """What a table with a member in each set lets the sets hold."""
    ports = [service_port(family, n, endpoints=(2, 3), protocol=p) for n, p in enumerate(Protocol)]
    local = service_port(family, 5, endpoints=(2, 3))
    local = replace(
        local,
        frontends=(*local.frontends, Vip(Via.LOAD_BALANCER, LOAD_BALANCER[family], 443)),
        internal=Use.DROP,
        external=Use.DROP,
        external_local=True,
        sources=tuple(map(canonical_network, SOURCES[family])),
    )
    table = changes(family, *ports, service_port(family, 6), local, rules=rules(family))
    checks = {ObjectKey("shop", "a"): HealthCheck(32000, 1)}
    world = World(family)
    around = Surroundings(frozenset({NODE[family]}), NODE[family])
    world.update(replace(table, health_checks=checks), around)
    image = held(world.image)
    filled = {kind for kind in SetKind if kind.value.rendered}
    assert {kind_of(key) for key in image} == {None, *filled}
    return image


def kind_of(key):
    """The set of a member, None for what is none."""
    member = split_member(key)
    return member and member[0]


def held(image):
    """The part of an image that sets hold, and they themselves."""
    named = {key: value for key, value in image.items() if str(key).startswith("set/")}
    return named | {key: image[key] for key in image if split_member(key)}


@FAMILIES
def test_what_was_written_is_read_back_and_a_second_write_changes_nothing(family):
    found = Sets(family)
    want = {**sets(family), **everything(family)}
    found.put(diff(found.observe(), want))

    assert Sets(family).observe() == want
    other = next(each for each in Family if each is not family)
    assert Sets(other).observe() == {}
    found.put(Changes(want, frozenset()))
    assert found.observe() == want
    for kind in SetKind:
        assert f"Name: {set_name(family, kind)}\n" in run(f"ipset list {set_name(family, kind)} -t")


@FAMILIES
def test_elements_leave_one_by_one_and_sets_at_last(family):
    found = Sets(family)
    want = everything(family)
    found.put(Changes(want, frozenset()))
    gone = frozenset(key for key in list(want)[::2] if isinstance(key, bytes))
    found.drop(Changes({}, gone))
    assert found.observe() == {key: value for key, value in want.items() if key not in gone}

    found.drop(Changes({}, gone))  # a second time: they may have gone by themselves
    run("ipset create KUBE-CLUSTER-IP hash:ip,port")
    assert found.clean_up() == len(SetKind)
    assert run("ipset list -n") == "KUBE-CLUSTER-IP\n"


@FAMILIES
def test_virtual_servers_are_ours_at_frontends_and_while_they_leave(family):
    found = Sets(family)
    want = everything(family)
    found.put(Changes(want, frozenset()))
    place = Place(address(family, "vip", 1), Protocol.TCP, 80)
    ours, gone = place_bytes(place), place_bytes(place._replace(port=444))
    refused = place_bytes(place._replace(address=address(family, "vip", 7)))
    dropped = place_bytes(Place(LOAD_BALANCER[family], Protocol.TCP, 443))
    assert found.owns(ours)
    assert not found.owns(gone)
    assert {
        member_key(SetKind.REFUSED, refused),
        member_key(SetKind.DROPPED, dropped),
    } <= want.keys()
    assert not found.owns(refused)
    assert not found.owns(dropped)
    assert found.owns(marked_bytes(FIRST_MARK))
    assert not found.owns(marked_bytes(1))

    found.keep(SetKind.LEAVING, [gone])
    for known in (found, Sets(family)):
        assert known.observe() == want, "the table knows nothing of it"
        assert known.owns(gone)
    found.keep(SetKind.LEAVING, [])
    assert not found.owns(gone)
    found.observe()
    assert not found.owns(gone)


@FAMILIES
@pytest.mark.parametrize("kind", WITHOUT_SERVER, ids=lambda kind: kind.value.name)
def test_one_that_comes_or_goes_is_ours_wherever_a_crash_is(family, kind):
    found = Sets(family)
    found.put(Changes(everything(family), frozenset()))
    ours = place_bytes(Place(address(family, "vip", 1), Protocol.TCP, 80))
    server, without_one = server_key(ours), member_key(kind, ours)

    found.put(Changes({without_one: b""}, frozenset({server})))
    assert found.owns(ours)
    found.keep(SetKind.LEAVING, [])
    assert not found.owns(ours)
    found.put(Changes({server: b"rr:0:0"}, frozenset({without_one})))
    again = Sets(family)
    again.observe()
    assert again.owns(ours)
    assert list(again.leaving()) == [ours]
    found.drop(Changes({}, frozenset({without_one})))
    found.keep(SetKind.LEAVING, [])
    assert found.owns(ours)


@FAMILIES
@pytest.mark.parametrize("kind", SetKind, ids=lambda kind: kind.value.name)
def test_it_shows_when_others_take_an_element_or_a_set(family, kind):
    found = Sets(family)
    found.put(Changes(everything(family), frozenset()))
    found.keep(SetKind.LEAVING, [place_bytes(Place(LOAD_BALANCER[family], Protocol.TCP, 443))])
    found.keep(SetKind.LEAVING_ADDRESSES, [packed(LOAD_BALANCER[family])])
    assert not found.disturbed()
    name = set_name(family, kind)
    run(f"ipset flush {name}")
    assert found.disturbed()
    found.put(diff(found.observe(), everything(family)))
    assert not found.disturbed()
    run(f"ipset destroy {name}")
    assert found.disturbed()


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.mark.parametrize(
    "exchange",
    [
        ("del {refused} {idle},tcp:80", "add {refused} {idle},tcp:81"),
        ("del {steered} {vip}", "add {steered} {idle}"),
        ("del {health} 32000", "add {health} 32001"),
        ("-exist add {local} {vip},tcp:443 skbmark 0x1234",),
    ],
    ids=["another port", "another address", "another health check", "another mark"],
)
@FAMILIES
def test_it_shows_within_seconds_when_others_exchange_what_is_in_a_set(family, exchange):
    clock = Clock()
    found = Sets(family, clock)
    idle = Place(NODE[family], Protocol.TCP, 80)
    want = everything(family) | {member_key(SetKind.REFUSED, place_bytes(idle)): b""}
    found.put(Changes(want, frozenset()))
    assert not found.disturbed()
    kinds = {
        "refused": SetKind.REFUSED,
        "steered": SetKind.STEERED_ADDRESSES,
        "health": SetKind.HEALTH,
        "local": SetKind.LOCAL_POLICY,
    }
    words = {word: set_name(family, kind) for word, kind in kinds.items()}
    for command in exchange:
        run("ipset " + command.format(**words, vip=LOAD_BALANCER[family], idle=NODE[family]))
    assert not found.disturbed()
    clock.now_s += 2.5
    assert found.disturbed()


@FAMILIES
def test_what_we_write_ourselves_does_not_disturb_and_who_undoes_it_does(family):
    clock = Clock()
    found = Sets(family, clock)
    found.put(Changes(everything(family), frozenset()))

    def noticed():
        clock.now_s += 2.5
        return found.disturbed()

    assert not noticed()
    old, new = (
        member_key(SetKind.REFUSED, place_bytes(Place(NODE[family], Protocol.TCP, port)))
        for port in (80, 81)
    )
    found.put(Changes({old: b""}, frozenset()))
    assert not noticed()
    found.put(Changes({new: b""}, frozenset()))
    found.drop(Changes({}, frozenset({old})))
    found.keep(SetKind.LEAVING_ADDRESSES, [packed(NODE[family])])
    assert not noticed()
    found.keep(SetKind.LEAVING_ADDRESSES, [])
    found.put(Changes({old: b""}, frozenset()))
    found.drop(Changes({}, frozenset({new})))
    name = set_name(family, SetKind.REFUSED)
    run(f"ipset del {name} {NODE[family]},tcp:80")
    run(f"ipset add {name} {NODE[family]},tcp:81")
    assert noticed()


def test_a_mark_that_differs_is_seen_and_replaced():
    family = Family.IPV4
    found = Sets(family)
    want = everything(family)
    found.put(Changes(want, frozenset()))
    name = set_name(family, SetKind.LOCAL_POLICY)
    run(f"ipset -exist add {name} {LOAD_BALANCER[family]},tcp:443 skbmark 0x1234")
    altered = diff(found.observe(), want)
    assert [kind_of(key) for key in altered.put] == [SetKind.LOCAL_POLICY]
    assert not altered.drop

    found.put(altered)
    assert found.observe() == want


def test_a_set_holds_more_than_upstreams_do():
    family = Family.IPV4
    found = Sets(family)
    key = set_key(set_name(family, SetKind.CLUSTER_IP))
    elements = {
        member_key(
            SetKind.CLUSTER_IP,
            place_bytes(Place(f"10.{n >> 8}.{n & 255}.1", protocol, 80)),
        ): b""
        for n in range(35_000)
        for protocol in (Protocol.TCP, Protocol.UDP)
    }
    assert len(elements) > 65_536
    want = {key: sets(family)[key], **elements}
    found.put(Changes(want, frozenset()))

    assert found.observe() == want


def test_a_set_of_another_type_under_our_name_is_an_error_that_names_it():
    name = set_name(Family.IPV4, SetKind.REFUSED)
    run(f"ipset create {name} hash:net")
    found = Sets(Family.IPV4)
    assert found.observe()[set_key(name)] == b"hash:net:inet"
    with pytest.raises(BackendError, match=f"{name}: a set of another shape"):
        found.put(Changes(sets(Family.IPV4), frozenset()))
