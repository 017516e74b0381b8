"""The link of ipvs mode in a kernel: its routes are as written, shared, and repaired."""

import contextlib
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.ipvs.driver import link as link_module
from backends.ipvs.driver.link import LINK
from backends.ipvs.path import IpvsPath
from backends.ipvs.render.entries import address_key, packed
from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Surroundings
from backends.kernel import dummy_links
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, diff
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run
from tests.support.ipvs.links import (
    FAMILIES,
    LOAD_BALANCER,
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
from tests.support.ipvs.options import PLAIN
from tests.support.waiting import LONGEST_S, until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("node_with_uplink")]


@FAMILIES
def test_what_open_connections_need_stays_until_they_have_ended(family, service_link):
    link = service_link(family)
    filled(link, family)
    needed = {packed(VIPS[family][0]), packed(LOAD_BALANCER[family])}
    link.drop(Changes({}, frozenset(wanted(family))), but=needed)
    assert (link.observe(), link.leaving()) == ({}, {packed(VIPS[family][0])})
    assert (len(routes(family)), len(rules_to_table(family))) == (2, 1)
    again = {address_key(VIPS[family][0]): packed(NODE[family])}
    link.put(Changes(again, frozenset()))
    link.release(but=())
    assert (link.observe(), len(routes(family))) == (again, 1)


@FAMILIES
def test_what_was_written_is_read_back_and_leads_here(family, service_link):
    link = service_link(family)
    filled(link, family)

    assert service_link(family).observe() == wanted(family)
    assert service_link(other_than(family)).observe() == {}
    link.put(Changes(wanted(family), frozenset()))
    assert link.observe() == wanted(family)
    assert "inet" not in ip(family, f"address show dev {LINK}")
    assert len(routes(family)) == 3
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    marks = {**dict.fromkeys(VIPS[family], 0), LOAD_BALANCER[family]: STEERED}
    for vip, mark in marks.items():
        with (
            socket.socket(kind, socket.SOCK_DGRAM) as here,
            socket.socket(kind, socket.SOCK_DGRAM) as client,
        ):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            here.bind(("", 0))
            here.settimeout(LONGEST_S)
            client.sendto(b"asked", (vip, here.getsockname()[1]))
            content, sender, *_ = here.recvfrom(9)
            assert content == b"asked"
            assert mark or sender[0] == NODE[family]
    assert (
        "unreachable"
        in subprocess.run(
            ("ip", "route", "get", LOAD_BALANCER[family]),
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )


@FAMILIES
def test_addresses_leave_one_by_one_and_get_another_source(family, service_link):
    link = service_link(family)
    filled(link, family)
    gone = frozenset(list(wanted(family))[:1])
    link.drop(Changes({}, gone))
    link.drop(Changes({}, gone))  # a second time: it may have gone by itself
    left = {key: value for key, value in wanted(family).items() if key not in gone}
    assert link.observe() == left

    own(family, OTHER[family])
    link.put(diff(link.observe(), wanted(family, OTHER[family])))
    assert link.observe() == wanted(family, OTHER[family])
    without = dict.fromkeys(wanted(family), b"")
    link.put(diff(link.observe(), without))
    assert link.observe() == without

    link.drop(Changes({}, frozenset(wanted(family))))
    assert link.observe() == {}
    assert RULE not in ip(family, "rule show")
    assert routes(family) == []


@FAMILIES
def test_the_link_stays_until_the_last_family_lets_go(family, service_link):
    first, last = service_link(family), service_link(other_than(family))
    filled(first, family)
    filled(last, other_than(family))

    assert first.clean_up() == 4
    assert last.observe() == wanted(other_than(family))
    assert first.clean_up() == 0
    assert last.clean_up() == 5
    assert LINK not in run("ip link show")
    assert not any(RULE in ip(each, "rule show") for each in Family)
    assert last.clean_up() == 0


def test_it_goes_though_both_families_let_go_of_it_at_the_same_time(
    node_with_uplink, service_link, monkeypatch
):
    for family in Family:
        filled(service_link(family), family)
    path = IpvsPath(PLAIN)
    both_look = threading.Barrier(len(Family), timeout=1.0)
    listed = link_module.routes_on

    def seen_by_both(family, device, *, table):
        found = list(listed(family, device, table=table))
        with contextlib.suppress(threading.BrokenBarrierError):  # one waits for the other
            both_look.wait()
        return found

    def clean_up(family):
        (former,) = path.former(family)
        with node_with_uplink.entered():
            return former.clean_up()

    monkeypatch.setattr(link_module, "routes_on", seen_by_both)
    with ThreadPoolExecutor(len(Family)) as executor:
        assert sum(executor.map(clean_up, Family)) == 9
    assert LINK not in run("ip link show")


@FAMILIES
def test_one_that_was_left_behind_goes_too(family):
    run(f"ip link add {LINK} type {dummy_links.KIND}")
    assert IpvsPath(PLAIN).clean_up(family) == 1
    assert LINK not in run("ip link show")
    assert IpvsPath(PLAIN).clean_up(family) == 0


@FAMILIES
def test_the_nodes_own_addresses_are_followed_but_for_those_of_services(family, service_link):
    loopback = "127.0.0.1" if family is Family.IPV4 else "::1"
    link = service_link(family)
    filled(link, family)
    assert link.surroundings() == Surroundings(frozenset({NODE[family], loopback}), NODE[family])

    run("ip link add kube-ipvs0 type veth peer name nobodys")
    own(family, VIPS[family][0], device="kube-ipvs0")
    own(family, VIPS[family][1], device=LINK)
    run("ip link set kube-ipvs0 up")
    ip(Family.IPV6, "address add fe80::77/64 dev uplink nodad")
    assert not link.disturbed()
    assert link.observe() == wanted(family)
    assert link.surroundings() == Surroundings(frozenset({NODE[family], loopback}), NODE[family])

    own(family, OTHER[family])
    assert link.surroundings().addresses == {NODE[family], loopback}, "as seen last"
    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    assert not link.disturbed()
    everything = {NODE[family], OTHER[family], loopback}
    assert link.surroundings() == Surroundings(frozenset(everything), NODE[family])

    ip(family, f"route add default via {ROUTER[family]} dev uplink")
    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    assert link.surroundings() == Surroundings(frozenset(everything), OTHER[family])

    for address in (NODE[family], OTHER[family]):
        own(family, address, "delete")
    until(link.disturbed, within_s=LONGEST_S, what="noticed")
    assert link.surroundings() == Surroundings(frozenset({loopback}), None)


def test_a_kernel_without_dummy_links_is_an_error_that_says_what_to_do(monkeypatch, service_link):
    monkeypatch.setattr(dummy_links, "KIND", "nonesuch")
    link = service_link(Family.IPV4)
    with pytest.raises(BackendError, match=f"{LINK}: .* no dummy links.* modprobe dummy") as error:
        link.put(Changes(wanted(Family.IPV4), frozenset()))
    assert not error.value.transient
    link.drop(Changes({}, frozenset(wanted(Family.IPV4))))


def test_a_link_of_another_kind_with_our_name_is_left_alone(service_link):
    run(f"ip link add {LINK} type bridge")
    run(f"ip link set {LINK} up")
    ip(Family.IPV4, f"route add local {VIPS[Family.IPV4][0]} dev {LINK} table local")
    link = service_link(Family.IPV4)
    assert link.observe() == {}
    with pytest.raises(BackendError, match=f"{LINK}: a link of the kind bridge"):
        link.put(Changes(wanted(Family.IPV4), frozenset()))
    link.drop(Changes({}, frozenset(wanted(Family.IPV4))))
    assert link.clean_up() == 0
    assert [VIPS[Family.IPV4][0]] == [line.split()[1] for line in routes(Family.IPV4)]


@FAMILIES
def test_a_source_that_is_gone_meanwhile_is_a_passing_refusal(family, service_link):
    link = service_link(family)
    with pytest.raises(BackendError, match="2 of 3 refused") as error:
        link.put(Changes(wanted(family, OTHER[family]), frozenset()))
    assert error.value.transient
