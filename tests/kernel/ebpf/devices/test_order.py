"""Beside programs of others: first where packets come in, last where they leave; theirs run on."""

import subprocess

import pytest

from backends.ebpf.driver import attach, clsact, tcx
from backends.ebpf.driver.attach import Attacher
from backends.ebpf.driver.sides import Programs, Side
from backends.kernel import traffic_control
from backends.kernel.bpf.links import Order
from backends.kernel.traffic_control import Filter, Parent
from kproxy.core.addresses import Family
from tests.support.ebpf.devices import (
    foreign_filter,
    foreign_link,
    index,
    link_numbers,
    pin_as_kin,
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

    attach.clean_up(Family.IPV4, node.root)
    assert traffic_control.devices_with_clsact() == {1}


def test_a_qdisc_of_ours_that_others_use_stays_for_them(node):
    node.by_tcx = False
    node.attached()
    foreign_filter(foreign(node), "up0", IN, 7)
    attach.clean_up(Family.IPV4, node.root)

    found = traffic_control.filters(index("up0"), Parent.INGRESS)
    assert [each.name for each in found] == ["cil_to_netdev"]
    assert node.order(node.come_in) == ["foreign"]


def test_the_other_family_counts_as_ours(node):
    devices = node.attached()
    kin = foreign_link(foreign(node, "kin"), "up0", IN, Order.BEFORE)
    pin_as_kin(kin, node.root / "kproxy" / "ipv6" / "devices" / f"{index('up0')}-ingress")
    before = link_numbers("up0", IN)
    node.later(devices)
    assert link_numbers("up0", IN) == before
    assert node.order(node.come_in) == ["kin", "ours"]
    kin.close()


def test_filters_of_the_other_family_count_as_ours(node):
    node.by_tcx = False
    devices = node.attached()
    kin = Filter(1, 0x6B700061, "bpf", "kproxy-ipv6", 0)
    program = foreign(node, "kin")
    assert traffic_control.put_filter(index("up0"), Parent.INGRESS, kin, program, replace=False)
    before = traffic_control.filters(index("up0"), Parent.INGRESS)
    node.settle(devices)
    assert traffic_control.filters(index("up0"), Parent.INGRESS) == before


def test_both_families_share_a_device_and_neither_moves_the_other(either, caplog):
    caplog.set_level("INFO")
    devices = either.attached()
    kin = foreign(either, "kin")
    other = Attacher(Family.IPV6, either.root, by_tcx=either.by_tcx)
    other.attach(index("up0"), Programs(kin, kin))
    either.later(devices)
    before = everything_at_the_uplink()
    for _ in range(2):
        other.attach(index("up0"), Programs(kin, kin))
        either.later(devices)
        assert not other.disturbed(index("up0"))
    assert everything_at_the_uplink() == before
    assert sorted(either.order(either.come_in)) == ["kin", "ours"]
    assert "programs of others" not in caplog.text

    attach.clean_up(Family.IPV4, either.root)
    assert orders(either) == (["kin"], ["kin"])
    attach.clean_up(Family.IPV6, either.root)
    assert orders(either) == ([], [])
    assert traffic_control.devices_with_clsact() == set()


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
    assert named == ["kproxy-ipv4", "cil_to_netdev"]
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
