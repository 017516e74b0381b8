"""What others do to the link of ipvs mode, or around it, is noticed and repaired."""

import socket
import subprocess

import pytest

from backends.ipvs.driver.link import LINK, TABLE
from backends.ipvs.render.entries import packed
from backends.kernel import dummy_links
from backends.kernel.host_routes import HostRoute, HostRoutes
from kproxy.core.image import Changes, diff
from tests.support.iptables.applied import run
from tests.support.ipvs.links import (
    FAMILIES,
    MORE_THAN_ANY_BUFFER_HOLDS,
    NODE,
    OTHER,
    ROUTER,
    RULE,
    VIPS,
    filled,
    ip,
    other_than,
    own,
    routes,
    rules_to_table,
    wanted,
)
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("node_with_uplink")]


@FAMILIES
def test_what_we_do_ourselves_is_no_reason_to_look(family, service_link):
    link, beside = service_link(family), service_link(other_than(family))
    assert link.disturbed(), "nothing was read yet"
    link.observe()
    beside.observe()

    link.put(Changes(wanted(family), frozenset()))
    beside.put(Changes(wanted(other_than(family)), frozenset()))
    link.put(Changes(wanted(family), frozenset()))
    link.drop(Changes({}, frozenset(list(wanted(family))[:1])))
    run("ip link set far up")
    elsewhere = HostRoutes(family)
    elsewhere.put(socket.if_nametoindex("lo"), [HostRoute(packed(OTHER[family]), b"", 7, 4)])
    elsewhere.close()

    assert not link.disturbed()
    assert not beside.disturbed()


def _source_flaps(family):
    own(family, NODE[family], "delete")
    own(family, NODE[family])


def _link_flaps(family):
    run(f"ip link set {LINK} down")
    run(f"ip link set {LINK} up")


def _link_is_renamed(family):
    while_up = ("ip", "link", "set", LINK, "name", "kube-other")  # Linux 6.2
    if subprocess.call(while_up):
        run(f"ip link set {LINK} down")
        run(f"ip link set {LINK} name kube-other")


def _link_is_made_again(family):
    run(f"ip link delete {LINK}")
    run(f"ip link add {LINK} type {dummy_links.KIND}")


def _route_is_edited(family):
    line = next(each for each in routes(family) if f"src {NODE[family]}" in each)
    ip(family, f"route replace {line.replace(NODE[family], OTHER[family])} dev {LINK} table local")


def _rule_is_edited(family):
    ip(family, f"rule delete {RULE}")
    ip(family, f"rule add not {RULE} priority 107")


DRIFT = {
    "the link is deleted": lambda family: run(f"ip link delete {LINK}"),
    "the link is set down": lambda family: run(f"ip link set {LINK} down"),
    "the link is down for a moment": _link_flaps,
    "the link is replaced": _link_is_made_again,
    "the link is renamed": _link_is_renamed,
    "a route is deleted": lambda family: ip(
        family, f"route delete local {VIPS[family][1]} table local"
    ),
    "a route is edited": _route_is_edited,
    "another route leads there first": lambda family: ip(
        family, f"route add local {VIPS[family][0]} dev {LINK} table local metric 5"
    ),
    "a route that nobody wants is there": lambda family: ip(
        family, f"route add local {ROUTER[family]} dev {LINK} table local"
    ),
    "the source is gone for a moment": _source_flaps,
    "a steered route is deleted": lambda family: ip(family, f"route flush table {TABLE}"),
    "the rule is deleted": lambda family: ip(family, f"rule delete {RULE}"),
    "the rule is edited": _rule_is_edited,
    "another rule leads there": lambda family: ip(
        family, f"rule add iif lo to {NODE[family]} lookup {TABLE}"
    ),
}


@FAMILIES
@pytest.mark.parametrize("meddle", DRIFT.values(), ids=DRIFT)
def test_what_others_do_is_noticed_and_repaired(family, meddle, service_link):
    link = service_link(family)
    own(family, OTHER[family])
    filled(link, family)
    link.disturbed()
    assert not link.disturbed()

    meddle(family)

    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    altered = diff(link.observe(), wanted(family))
    link.put(altered)
    link.drop(altered)
    assert link.observe() == wanted(family)
    assert not link.disturbed()
    assert len(routes(family)) == 3
    assert rules_to_table(family) == [f"{RULE} proto 107"]
    assert " UP " in run(f"ip link show {LINK} up").replace(",", " ").replace("<", " ")


@FAMILIES
def test_an_address_of_the_nodes_own_goes_before_ours_and_stays(family, service_link):
    vip = VIPS[family][0]
    ip(family, f"address add {vip}/{family.bits} dev lo")
    link = service_link(family)
    filled(link, family)
    link.put(Changes(wanted(family), frozenset()))
    assert " dev lo " in ip(family, f"route get {vip}")

    link.drop(Changes({}, frozenset(wanted(family))))
    assert " dev lo " in ip(family, f"route get {vip}")
    assert link.observe() == {}


@FAMILIES
def test_what_is_told_too_much_to_keep_is_a_reason_to_look(family, service_link):
    link = service_link(family)
    filled(link, family)
    first = int.from_bytes(packed(OTHER[family]))
    numbers = range(first + 1, first + MORE_THAN_ANY_BUFFER_HOLDS)
    many = [HostRoute(each.to_bytes(family.bits // 8), b"", 7, 4) for each in numbers]
    others, device = HostRoutes(family), socket.if_nametoindex("lo")

    others.put(device, many)
    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    assert link.observe() == wanted(family)
    assert not link.disturbed()

    others.delete(device, many)
    own(family, OTHER[family])
    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    assert OTHER[family] in link.surroundings().addresses
    others.close()
