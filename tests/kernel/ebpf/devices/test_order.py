"""Beside programs of others: first where packets come in, last where they leave; theirs run on."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.ebpf.driver import attach, clsact, tcx
from backends.ebpf.driver.attach import Attacher
from backends.ebpf.driver.sides import Side
from backends.kernel import traffic_control
from backends.kernel.bpf.links import Order
from backends.kernel.traffic_control import Filter, Parent
from kproxy.core.addresses import Family
from tests.support.ebpf.devices import (
    foreign_filter,
    foreign_link,
    index,
    ip,
    link_numbers,
    pin_as_former,
)

pytestmark = pytest.mark.kernel

IN, OUT = Side.INGRESS, Side.EGRESS


def foreign(node, name="foreign"):
    return node.loaded.programs[name]


def orders(node):
    """Return who meets a packet that comes in, and one that leaves."""
    return node.order(node.come_in), node.order(node.leave)


ONION = (["ours", "foreign"], ["foreign", "ours"])


def test_programs_that_were_there_before_run_inside_of_ours(node, caplog):
    caplog.set_level("INFO")
    kept = [foreign_link(foreign(node), "up0", side, Order.BEFORE) for side in Side]
    node.attached()
    assert orders(node) == ONION
    assert caplog.text.count("programs of others run before ours where packets leave") == 1
    for link in kept:
        link.close()


def test_programs_that_come_later_are_put_inside_too(node):
    devices = node.attached()
    kept = [
        foreign_link(foreign(node), "up0", IN, Order.BEFORE),
        foreign_link(foreign(node), "up0", OUT, Order.AFTER),
    ]
    numbers = [link.info().number for link in kept]
    assert orders(node) == (["foreign", "ours"], ["ours", "foreign"])

    node.later(devices)
    assert orders(node) == ONION
    assert [link.info().number for link in kept] == numbers
    assert traffic_control.devices_with_clsact() == set()
    for link in kept:
        link.close()


def test_filters_that_were_there_before_run_inside_of_ours(either, caplog):
    caplog.set_level("INFO")
    for side in Side:
        foreign_filter(foreign(either), "up0", side)
    either.attached()
    assert orders(either) == ONION
    assert caplog.text.count("programs of others run before ours where packets leave") == 1


def test_filters_that_come_later_are_noticed_at_once(either):
    """By netlink: no time passes. At egress ours moves behind them, and back when they are gone."""
    devices = either.attached()
    for side, priority in ((IN, 1), (OUT, 0xC000)):  # what tc(8) begins with, if it chooses
        foreign_filter(foreign(either), "up0", side, priority)
    either.settle(devices)
    assert orders(either) == ONION

    for side in (Parent.INGRESS, Parent.EGRESS):
        for each in traffic_control.filters(index("up0"), side):
            if each.name == "cil_to_netdev":
                traffic_control.remove_filter(index("up0"), side, each)
    either.settle(devices)
    assert orders(either) == (["ours"], ["ours"])


def test_both_kinds_of_foreign_programs_at_once(either):
    kept = [foreign_link(foreign(either, "another"), "up0", OUT, Order.AFTER)]
    foreign_filter(foreign(either), "up0", OUT)
    either.attached()
    assert either.order(either.leave) == ["another", "foreign", "ours"]
    for link in kept:
        link.close()


def test_a_qdisc_of_others_stays_and_one_of_ours_goes_with_its_last_filter(node):
    traffic_control.add_clsact(index("lo"))
    node.by_tcx = False
    node.attached()
    assert traffic_control.devices_with_clsact() == {1, index("up0")}

    attach.clean_up(node.root)
    assert traffic_control.devices_with_clsact() == {1}


def test_a_qdisc_of_ours_that_others_use_stays_for_them(node):
    node.by_tcx = False
    node.attached()
    foreign_filter(foreign(node), "up0", IN, 7)
    attach.clean_up(node.root)

    found = traffic_control.filters(index("up0"), Parent.INGRESS)
    assert [each.name for each in found] == ["cil_to_netdev"]
    assert node.order(node.come_in) == ["foreign"]


def test_families_share_what_is_at_a_device_and_move_it_once(either, caplog):
    """Each follows devices in a thread of its own, and both attach the same."""
    caplog.set_level("INFO")
    ip("link add pod0 type veth peer name pod1")
    one, other = either.start_both()
    with ThreadPoolExecutor() as threads:
        list(threads.map(either.attach, (one, other)))
    before = everything_at_the_uplink()
    for side in Side:
        links = link_numbers("up0", side)
        filters = traffic_control.filters(index("up0"), clsact.PARENTS[side])
        assert len(links) + len(filters) == 1
    assert one.attached()
    assert other.attached()

    for devices in (one, other):
        either.later(devices)
    assert everything_at_the_uplink() == before
    assert orders(either) == (["ours"], ["ours"])
    assert "programs" not in caplog.text

    attach.clean_up(either.root)
    assert orders(either) == ([], [])
    assert traffic_control.devices_with_clsact() == set()


def test_what_a_family_attached_to_a_device_with_an_old_number_is_left_to_it(either):
    """The other one has heard by now that the old one went."""
    either.attached()
    late = Attacher(either.root, by_tcx=either.by_tcx)
    late.forget(index("up0"))
    assert orders(either) == (["ours"], ["ours"])


def test_programs_of_each_family_by_a_former_kproxy_make_room(node):
    """Their filters get the program that is for both; their links go once all is attached."""
    old = foreign(node, "kin")
    for family, name in ((Family.IPV4, "kin"), (Family.IPV6, "another")):
        for side in Side:
            link = foreign_link(foreign(node, name), "up0", side, Order.AFTER)
            pin_as_former(link, node.root, family, side)
    named = (Filter(n, n, "bpf", f"kproxy-{name}", 0) for n, name in ((1, "ipv4"), (2, "ipv6")))
    traffic_control.add_clsact(index("up0"))
    for each in named:
        traffic_control.put_filter(index("up0"), Parent.INGRESS, each, old, replace=False)
    node.attached()
    assert node.order(node.come_in) == ["ours", "kin", "another"]
    assert node.order(node.leave) == ["kin", "another", "ours"]
    assert traffic_control.filters(index("up0"), Parent.INGRESS) == []

    assert [attach.remove_own_links(node.root, family) for family in Family] == [2, 2]
    assert orders(node) == (["ours"], ["ours"])
    assert not list((node.root / "kproxy").glob("ipv*/devices"))


def everything_at_the_uplink():
    return [
        (link_numbers("up0", side), traffic_control.filters(index("up0"), clsact.PARENTS[side]))
        for side in Side
    ]


def test_who_insists_on_our_place_gets_it_in_the_end(node, caplog):
    """Two that both want to be first would move for ever."""
    devices = node.attached()
    for _ in range(5):
        insisting = foreign_link(foreign(node), "up0", IN, Order.BEFORE)
        node.later(devices)
        last = node.order(node.come_in)
        insisting.detach()
        insisting.close()
        node.later(devices)
    assert last == ["foreign", "ours"]
    assert caplog.text.count("another program insists on our place at the ingress") == 1


def test_a_priority_that_others_use_for_another_kind_is_left_to_them(node):
    """No filter can come before one of priority 1: ours comes right behind it."""
    node.by_tcx = False
    traffic_control.add_clsact(index("up0"))
    other = "filter add dev up0 ingress prio 1 protocol ip u32 match u32 0 0"
    subprocess.run(["tc", *other.split()], check=True)
    foreign_filter(foreign(node), "up0", IN, 3)
    node.attached()
    found = traffic_control.filters(index("up0"), Parent.INGRESS)
    named = [each.name for each in found if each.kind == "bpf"]
    assert named == ["kproxy", "cil_to_netdev"]
    assert node.order(node.come_in) == ["ours", "foreign"]


CHANGING = (
    (tcx.links, "attach_to_device"),
    (tcx.links.Link, "detach"),
    (tcx.links.Link, "update"),
    (clsact.traffic_control, "put_filter"),
    (clsact.traffic_control, "remove_filter"),
    (clsact.traffic_control, "remove_clsact"),
)


@pytest.fixture
def steps(either, monkeypatch):
    """Each change of the kernel that is made, and how often a packet met our program after it."""
    seen = []

    def watched(name, function):
        def call(*arguments, **keywords):
            result = function(*arguments, **keywords)
            came, left = (
                either.seen("up0", side, send)
                for side, send in ((IN, either.come_in), (OUT, either.leave))
            )
            seen.append((name, came, left))
            return result

        return call

    for module, name in CHANGING:
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return seen


def test_an_upgrade_loses_no_packet_and_no_packet_meets_both(either, steps):
    devices = either.attached()
    steps.clear()
    for newer in (True, False):
        devices.attach(either.programs(newer=newer))
        either.settle(devices)
    assert {step[1:] for step in steps} == {(1, 1)}
    assert len(steps) == 8


def test_no_packet_is_lost_while_ours_moves(either, steps):
    devices = either.attached()
    kept = foreign_link(foreign(either), "up0", IN, Order.BEFORE)
    foreign_filter(foreign(either, "another"), "up0", IN)
    foreign_filter(foreign(either, "another"), "up0", OUT, 0xC000)
    steps.clear()
    either.later(devices)

    assert steps
    assert all(came >= 1 <= left for _, came, left in steps), steps
    others = ["foreign", "ours"] if not either.by_tcx else ["ours", "foreign"]
    assert orders(either) == ([*others, "another"], ["another", "ours"])
    kept.close()
