"""What others do to our programs and maps is undone within five seconds; kills do no harm."""

import subprocess
from itertools import count

import pytest

from backends.ebpf.driver import attach, clsact, tcx
from backends.ebpf.driver.loopback import Loopback
from backends.ebpf.driver.sides import Side
from backends.kernel import sysctl, traffic_control
from backends.kernel.bpf import links
from backends.kernel.bpf.links import Order
from backends.kernel.traffic_control import Filter, Parent
from kproxy.core.addresses import Family
from tests.support import waiting
from tests.support.ebpf.devices import (
    TYPES,
    foreign_filter,
    foreign_link,
    index,
    ip,
    link_numbers,
)

pytestmark = pytest.mark.kernel

IN, OUT = Side.INGRESS, Side.EGRESS


def pin(node, side, device="up0"):
    return node.links / f"{index(device)}-{side.value}"


def serves(node):
    """Say whether a packet meets our program once at both sides."""
    return node.seen("up0", IN, node.come_in) == 1 == node.seen("up0", OUT, node.leave)


@pytest.mark.parametrize("side", Side)
def test_a_pin_that_somebody_removed(node, side):
    devices = node.attached()
    pin(node, side).unlink()
    waiting.until(
        lambda: not link_numbers("up0", side), within_s=waiting.LONGEST_S, what="the kernel lets go"
    )
    node.later(devices)
    assert serves(node)


def test_all_pins_that_somebody_removed(node):
    ip(*(f"link add p{n} type veth peer name q{n}" for n in range(4)))
    devices = node.attached()
    pins = node.pins()
    for path in node.links.iterdir():
        path.unlink()
    waiting.until(
        lambda: not any(link_numbers(f"p{n}", side) for n in range(4) for side in Side),
        within_s=waiting.LONGEST_S,
        what="the kernel lets go",
    )
    node.later(devices)
    assert node.pins() == pins
    assert serves(node)


@pytest.mark.parametrize("side", Side)
def test_a_link_that_somebody_detached(node, side):
    devices = node.attached()
    with links.pinned(pin(node, side)) as link:
        link.detach()
    assert not serves(node)
    node.later(devices)
    assert serves(node)


def test_a_program_that_somebody_put_into_our_link(node):
    devices = node.attached()
    with links.pinned(pin(node, IN)) as link:
        link.update(node.loaded.programs["foreign"])
    assert node.order(node.come_in) == ["foreign"]
    node.later(devices)
    assert node.order(node.come_in) == ["ours"]


@pytest.mark.parametrize("side", Side)
def test_a_filter_that_somebody_removed_is_back_at_once(node, side):
    node.by_tcx = False
    devices = node.attached()
    parent = clsact.PARENTS[side]
    (ours,) = traffic_control.filters(index("up0"), parent)
    traffic_control.remove_filter(index("up0"), parent, ours)
    assert not serves(node)
    node.settle(devices)
    assert serves(node)


def test_a_filter_that_somebody_replaced_is_back_at_once(node):
    node.by_tcx = False
    devices = node.attached()
    (ours,) = traffic_control.filters(index("up0"), Parent.INGRESS)
    program = node.loaded.programs["foreign"]
    traffic_control.put_filter(index("up0"), Parent.INGRESS, ours, program, replace=True)
    assert node.order(node.come_in) == ["foreign"]
    node.settle(devices)
    assert node.order(node.come_in) == ["ours"]


def test_a_qdisc_that_somebody_removed_is_back_at_once(node):
    node.by_tcx = False
    devices = node.attached()
    subprocess.run(["tc", "qdisc", "del", "dev", "up0", "clsact"], check=True)
    assert not serves(node)
    node.settle(devices)
    assert serves(node)


def test_foreign_programs_are_not_touched_by_repairs(node):
    devices = node.attached()
    kept = [
        foreign_link(node.loaded.programs["foreign"], "up0", side, Order.AFTER) for side in Side
    ]
    foreign_filter(node.loaded.programs["another"], "up0", IN)
    before = traffic_control.filters(index("up0"), Parent.INGRESS)
    numbers = [link.info() for link in kept]
    for side in Side:
        with links.pinned(pin(node, side)) as link:
            link.detach()
    node.later(devices)

    assert [link.info() for link in kept] == numbers
    assert traffic_control.filters(index("up0"), Parent.INGRESS) == before
    assert node.order(node.come_in) == ["ours", "foreign", "another"]
    assert node.order(node.leave) == ["foreign", "ours"]
    for link in kept:
        link.close()


def test_claims_that_somebody_took_back_are_set_again(node):
    ip("addr add 192.0.2.1/24 dev up0")
    devices = node.attached()
    claims = node.loaded.maps["claims"]
    before = dict(claims.items())
    assert any(map(any, before.values()))
    claims.update_many({key: bytes(len(value)) for key, value in before.items()})
    node.later(devices)
    assert dict(claims.items()) == before


@pytest.mark.parametrize(
    "name", ["devices", "own_addresses", "own_networks", "masquerade_addresses"]
)
def test_entries_that_somebody_edited_removed_or_added(node, name):
    ip("addr add 192.0.2.1/24 dev up0")
    devices = node.attached()
    kernel_map = node.loaded.maps[name]
    right = dict(kernel_map.items())
    first, *others = right
    added = bytes(reversed(first))
    kernel_map.update(first, bytes(len(right[first]) - 1) + b"\xee")
    kernel_map.delete_many(others[:1])
    kernel_map.update(added if name != "own_networks" else b"\x08\0\0\0\x0a\0\0\0", right[first])
    assert dict(kernel_map.items()) != right
    node.later(devices)
    assert dict(kernel_map.items()) == right


def test_settings_of_loopback_are_turned_on_again(node, caplog):
    caplog.set_level("INFO")
    devices = node.attached()
    sysctl.set_loopback("accept_local", "0")
    node.later(devices)
    assert all(map(sysctl.loopback, sysctl.LOOPBACK_SETTINGS))
    assert "IPv4: turned 1 settings of lo on" in caplog.messages


def test_clean_up_leaves_nothing_of_us_and_everything_of_others(either):
    """A setting of loopback that was on already stays on."""
    sysctl.set_loopback("accept_local", "1")
    kept = foreign_link(either.loaded.programs["foreign"], "up0", IN, Order.BEFORE)
    foreign_filter(either.loaded.programs["another"], "up0", OUT)
    ip("link add pod0 type veth peer name pod1")
    either.attached().close()

    removed = attach.clean_up(either.root)
    removed += Loopback(Family.IPV4, either.root).close()
    assert removed >= 9  # two programs at four devices, one setting
    assert {path.name for path in (either.root / "kproxy").rglob("*")} <= {"ipv4", "gate"}
    assert link_numbers("up0", IN) == [kept.info().number]
    assert traffic_control.devices_with_clsact() == {index("up0")}
    (left,) = traffic_control.filters(index("up0"), Parent.EGRESS)
    assert left.name == "cil_to_netdev"
    for name in ("lo", "pod0", "pod1"):
        assert not any(links.attached(index(name), TYPES[side]).programs for side in Side)
    assert (sysctl.loopback("accept_local"), sysctl.loopback("route_localnet")) == (True, False)
    assert attach.clean_up(either.root) == 0
    kept.close()


class Killed(BaseException):
    pass


WRITING = (
    (tcx.links, "attach_to_device"),
    (tcx.objects, "pin"),
    (tcx.links.Link, "detach"),
    (tcx.links.Link, "update"),
    (clsact.traffic_control, "add_clsact"),
    (clsact.traffic_control, "put_filter"),
    (clsact.traffic_control, "remove_filter"),
    (clsact.traffic_control, "remove_clsact"),
)


def killed_after(monkeypatch, steps):
    """Let the process die after so many calls that change the kernel: nothing of it runs on."""
    left = count(steps, -1)

    def mortal(function):
        def call(*arguments, **keywords):
            if next(left) == 0:
                raise Killed
            return function(*arguments, **keywords)

        return call

    for module, name in WRITING:
        monkeypatch.setattr(module, name, mortal(getattr(module, name)))


def attaches_until_killed(node, steps):
    """Say whether the agent was done before it was killed."""
    with pytest.MonkeyPatch.context() as patch:
        killed_after(patch, steps)
        try:
            node.attached().close()
        except Killed:
            return False
    return True


def moved_by_others(node):
    """Give us reasons to attach, to move, to go behind a filter and to come back from one."""
    with links.pinned(pin(node, OUT, "lo")) as link:
        link.detach()
    foreign = node.loaded.programs["foreign"]
    kept = [foreign_link(foreign, "up0", IN, Order.BEFORE)]
    foreign_filter(foreign, "up0", OUT)
    ours = Filter(0xFFFF, 0x6B700041, "bpf", "kproxy", 0)
    traffic_control.add_clsact(index("lo"))
    traffic_control.put_filter(
        index("lo"), Parent.EGRESS, ours, node.programs().egress, replace=False
    )
    return kept


def test_a_kill_at_any_step_is_made_good_by_the_next_start(node):
    """And at no step a packet misses our program that met it before."""
    for steps in range(40):
        node.attached().close()
        kept = moved_by_others(node)
        ended = attaches_until_killed(node, steps)
        assert "ours" in node.order(node.come_in), steps
        assert "ours" in node.order(node.leave), steps

        node.attached().close()
        assert node.order(node.come_in) == ["ours", "foreign"], steps
        assert node.order(node.leave) == ["foreign", "ours"], steps
        assert traffic_control.devices_with_clsact() == {1, index("up0")}, steps
        assert traffic_control.filters(1, Parent.EGRESS) == [], steps
        assert node.pins() == {"1-ingress", "1-egress", f"{index('up0')}-ingress"}, steps
        for link in kept:
            link.detach()
            link.close()
        subprocess.run(["tc", "qdisc", "del", "dev", "up0", "clsact"], check=True)
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "clsact"], check=True)
        if ended:
            return
    pytest.fail("it never ended")
