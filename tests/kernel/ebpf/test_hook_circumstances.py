"""What decides over a call besides its Service: affinity, settings, and how the socket is bound."""

import dataclasses
import ipaddress
import socket
import sys
import time

import pytest

from backends.ebpf.driver.device_layout import HostFlag, SocketHooks
from backends.ebpf.render.layout import packed
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from kproxy.core.table import TableChanges, Use, Via, Vip
from tests.support.ebpf.talking import (
    answer,
    answering,
    program,
    udp,
    udp_service,
)
from tests.support.tables import pod, table, vip

UDP = Protocol.UDP
# So long that what is a little younger stays so, however busy the machine is.
TERM_S = 10_000
A_LITTLE_S = 100
_COARSE_CLOCK = 6  # CLOCK_MONOTONIC_COARSE (linux/time.h)
_LOOPBACK = {Family.IPV4: "127.0.0.1/32", Family.IPV6: "::1/128"}

pytestmark = pytest.mark.kernel


def test_affinity_goes_by_the_pods_address_in_the_map_that_tc_reads(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [11, 12, 13], affinity_s=TERM_S))
    for number in (13, 11):
        remember(hooks, client=11, endpoint=number, age_s=TERM_S - A_LITTLE_S)
        for _ in range(10):
            assert connected_to(hooked, servers, wire, "pod1") == number


def test_affinity_ends_with_its_time_and_with_its_endpoint(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [11, 12, 13], affinity_s=TERM_S))
    heard = set()
    for _ in range(70):  # by chance alone one of three would never be it: once in 10 ** 11
        remember(hooks, client=11, endpoint=13, age_s=TERM_S + 2)
        heard.add(connected_to(hooked, servers, wire, "pod1"))
    assert heard == {11, 12, 13}
    program(hooks, udp_service(hooks, 1, [11, 12], affinity_s=TERM_S))
    for _ in range(10):
        remember(hooks, client=11, endpoint=13, age_s=0)
        assert connected_to(hooked, servers, wire, "pod1") in {11, 12}


def test_a_first_connection_makes_affinity(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [11, 12, 13], affinity_s=TERM_S))
    forget_affinity(hooks)
    first = connected_to(hooked, servers, wire, "pod1")
    for _ in range(20):
        assert connected_to(hooked, servers, wire, "pod1") == first


def test_affinity_to_an_endpoint_that_this_frontend_does_not_use_is_no_reason(
    hooked, hooks, servers, wire
):
    entry = udp_service(hooks, 1, [11, 12, 13], affinity_s=TERM_S)
    (local,) = (target for target in entry.targets if target.address == pod(wire.family, 12))
    program(
        hooks,
        dataclasses.replace(
            entry,
            frontends=(*entry.frontends, Vip(Via.EXTERNAL_IP, vip(wire.family, 9), 80)),
            internal=Use.LOCAL_TARGETS,
            local_targets=(local,),
        ),
    )
    for _ in range(10):
        remember(hooks, client=11, endpoint=13, age_s=0)
        assert connected_to(hooked, servers, wire, "pod1") == 12


def test_each_connection_prolongs_affinity(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [11, 12, 13], affinity_s=TERM_S))
    remember(hooks, client=11, endpoint=13, age_s=TERM_S - A_LITTLE_S)
    before_s = now_s()
    connected_to(hooked, servers, wire, "pod1")
    ((_, value),) = hooks.maps["affinity"].items()
    assert before_s <= int.from_bytes(value[-4:], sys.byteorder) <= now_s()


def forget_affinity(hooks):
    held = hooks.maps["affinity"]
    held.delete_many([key for key, _ in held.items()])


def remember(hooks, *, client, endpoint, age_s):
    """Write an affinity as tc would."""
    service = next(value[:8] for _, value in hooks.maps["frontends"].items() if any(value[:8]))
    source = packed(pod(hooks.family, client))
    target = packed(pod(hooks.family, endpoint)) + (8080).to_bytes(2, "big")
    held = hooks.maps["affinity"]
    stamp = ((now_s() - age_s) % (1 << 32)).to_bytes(4, sys.byteorder)
    key = (service + source).ljust(held.shape.key_size, b"\0")
    held.update(key, target + bytes(2) + stamp)


def now_s():
    """Return the time as the programs tell it: a tick behind the monotonic clock at most."""
    return int(time.clock_gettime(_COARSE_CLOCK))


def connected_to(hooked, servers, wire, client):
    """Connect, and return which server hears of it."""
    with hooked.client(client), udp(wire) as caller:
        caller.connect(wire.vip(1))
        caller.send(b"question")
        return answering(servers, wire.family)


@pytest.mark.parametrize(
    ("hooks_for", "flags", "translated"),
    [
        (SocketHooks.ALL, HostFlag(0), {"node", "pod1"}),
        (SocketHooks.HOST, HostFlag(0), {"node"}),
        (SocketHooks.OFF, HostFlag(0), set()),
        (SocketHooks.ALL, HostFlag.WITHDRAWN, set()),
    ],
)
def test_settings_decide_whose_sockets_are_translated(
    hooked, hooks, wire, hooks_for, flags, translated
):
    program(hooks, udp_service(hooks, 1, [12]))
    hooked.set_hooks(wire.family, hooks_for, flags)
    try:
        for client in ("node", "pod1"):
            before = hooks.reasons["SOCKET_TRANSLATED"]
            with hooked.client(client), udp(wire) as caller:
                caller.connect(wire.vip(1))
                caller.sendto(b"question", wire.vip(1))
            expected = 2 if client in translated else 0
            assert hooks.reasons["SOCKET_TRANSLATED"] == before + expected
    finally:
        hooked.set_hooks(wire.family)


def test_what_another_data_path_may_have_begun_stays_with_it(hooked, hooks, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    counts = hooks.reasons

    def translated(caller):
        before = counts["SOCKET_TRANSLATED"]
        caller.sendto(b"question", wire.vip(1))
        return counts["SOCKET_TRANSLATED"] > before

    with hooked.client("pod1"), udp(wire) as ours, udp(wire) as theirs, udp(wire) as later:
        assert translated(ours)
        hooked.set_hooks(wire.family, flags=HostFlag.HAND_OVER)
        try:
            assert translated(ours)
            assert not translated(theirs)
        finally:
            hooked.set_hooks(wire.family)
        assert not translated(theirs)
        assert translated(later)


def test_withdrawn_hooks_go_on_to_show_frontends(hooked, hooks, servers, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    try:
        with hooked.client("pod1"), udp(wire) as caller:
            caller.connect(wire.vip(1))
            hooked.set_hooks(wire.family, flags=HostFlag.WITHDRAWN)
            caller.send(b"question")
            answer(servers[wire.family, 12])
            assert caller.recvfrom(100)[1][:2] == wire.vip(1)
            assert caller.getpeername()[:2] == wire.vip(1)
    finally:
        hooked.set_hooks(wire.family)


def test_a_socket_that_sends_by_one_device_is_left_to_tc(hooked, hooks, wire):
    program(hooks, udp_service(hooks, 1, [12]))
    before = hooks.reasons["LEFT_BOUND_DEVICE"]
    with hooked.client("node"), udp(wire) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        caller.connect(wire.vip(1))
    assert hooks.reasons["LEFT_BOUND_DEVICE"] == before + 1


def test_loopback_in_a_pod_is_the_pod_itself(hooked, hooks, wire):
    rules = dataclasses.replace(
        table(wire.family).rules,
        localhost_node_ports=(ipaddress.ip_network(_LOOPBACK[wire.family]),),
    )
    made = table(wire.family, udp_service(hooks, 1, [12], node_port=30001))
    made.apply(TableChanges(wire.family, rules=rules))
    hooks.program(made)
    here = wire.at(str(rules.localhost_node_ports[0][-1]), 30001)
    for client, reason in (("node", "SOCKET_TRANSLATED"), ("pod1", "LEFT_POD_LOOPBACK")):
        before = hooks.reasons[reason]
        with hooked.client(client), udp(wire) as caller:
            caller.connect(here)
        assert hooks.reasons[reason] == before + 1


def test_a_node_ports_number_elsewhere_is_nobodys(hooked, hooks, wire):
    program(hooks, udp_service(hooks, 1, [12], node_port=30001))
    before = hooks.reasons["NOT_A_SERVICE"]
    with hooked.client("node"), udp(wire) as caller:
        caller.connect(wire.at(pod(wire.family, 13), 30001))
    assert hooks.reasons["NOT_A_SERVICE"] == before + 1


def test_no_address_at_all_is_never_a_node_port(hooked, hooks, wire):
    program(hooks, udp_service(hooks, 1, [12], node_port=30001))
    before = hooks.reasons["NOT_A_SERVICE"]
    unspecified = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}[wire.family]
    with hooked.client("node"), udp(wire) as caller:
        caller.connect(wire.at(unspecified, 30001))
    assert hooks.reasons["NOT_A_SERVICE"] == before + 1
