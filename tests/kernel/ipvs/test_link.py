"""The link of ipvs mode in a kernel: its routes are as written, shared, and repaired."""

import contextlib
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.ipvs.driver import link as link_module
from backends.ipvs.driver.link import LINK, TABLE, ServiceLink, SharedLink
from backends.ipvs.path import IpvsPath
from backends.ipvs.render.entries import STEERING, address_key, packed, steered_key
from backends.ipvs.render.marks import STEERED
from backends.ipvs.render.renderer import Surroundings
from backends.kernel import dummy_links
from backends.kernel.host_routes import HostRoute, HostRoutes
from kproxy.core.addresses import Family
from kproxy.core.image import Changes, diff
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run
from tests.support.ipvs.options import PLAIN
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
NODE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
OTHER = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:7::1"}
ROUTER = {Family.IPV4: "198.51.100.254", Family.IPV6: "2001:db8:7::fe"}
VIPS = {Family.IPV4: ("172.30.0.1", "172.30.0.2"), Family.IPV6: ("fd00:30::1", "fd00:30::2")}
LOAD_BALANCER = {Family.IPV4: "203.0.113.9", Family.IPV6: "2001:db8:9::9"}
RULE = f"fwmark {STEERED:#x}/{STEERED:#x} lookup {TABLE}"
MORE_THAN_ANY_BUFFER_HOLDS = 20_000


@pytest.fixture(autouse=True)
def namespace(monkeypatch):
    """Run the test on a node of its own, with one address of each family.

    A kernel without dummy links has others that carry nothing by themselves.
    """
    made = Namespace("node")
    with made.entered():
        run("ip link set lo up")
        run("ip link add uplink type veth peer name far")
        run("ip link set uplink up")
        for family in Family:
            own(family, NODE[family])
        if subprocess.call(("ip", "link", "add", "tried", "type", dummy_links.KIND)):
            monkeypatch.setattr(dummy_links, "KIND", "ifb")
        else:
            run("ip link delete tried")
        yield made
    made.close()


@pytest.fixture
def shared():
    """The link that both families' objects of a test know."""
    return SharedLink()


@pytest.fixture
def service_link(shared):
    """A way to make one family's object, closed behind the test."""
    made = []

    def make(family):
        made.append(ServiceLink(family, shared))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ip(family, command):
    """Run ip(8) for a family."""
    return run(f"ip {'-4' if family is Family.IPV4 else '-6'} {command}")


def routes(family):
    """What leads to the link, a line each."""
    return ip(family, f"route show table all dev {LINK} type local").splitlines()


def rules_to_table(family):
    """What the rules that lead to our table ask for."""
    lines = ip(family, "rule show").splitlines()
    return [line.split("from all ")[-1].strip() for line in lines if f"lookup {TABLE}" in line]


def own(family, address, verb="add", device="uplink"):
    """Give the node an address of its own, or take it away."""
    length = 24 if family is Family.IPV4 else 64
    rest = "nodad" if family is Family.IPV6 and verb == "add" else ""
    ip(family, f"address {verb} {address}/{length} dev {device} {rest}")
    # The kernel takes an IPv6 address into use, and tells of it, in a thread of its own.
    until(lambda: not ip(family, "address show tentative"), within_s=LONGEST_S, what="in use")


def wanted(family, source=None):
    """The image of a link with each of the addresses on it, one of them for steered packets."""
    value = packed(source or NODE[family])
    image = {address_key(vip): value for vip in VIPS[family]}
    return image | {steered_key(LOAD_BALANCER[family]): b"", STEERING: b""}


def filled(link, family):
    """Make a link hold what is wanted."""
    link.put(diff(link.observe(), wanted(family)))
    assert link.observe() == wanted(family)


def other_than(family):
    """The other family."""
    return next(each for each in Family if each is not family)


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
    namespace, service_link, monkeypatch
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
        with namespace.entered():
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
