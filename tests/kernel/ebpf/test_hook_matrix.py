"""Which calls socket hooks translate, and which they leave to tc: never a verdict of their own.

What a call deserves is the core's answer; what a hook may know of that is told here in one place.
"""

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

import pytest

from kproxy.core.addresses import Family
from kproxy.core.decision import decide
from kproxy.core.resolve import Drop, Packet, Pass, Reject, origin_of, resolve
from kproxy.core.table import Via
from tests.support.commands import output_of
from tests.support.ebpf.socket_hooks import HookedNetwork, forget_pods
from tests.support.ebpf.talking import peer_of
from tests.support.net import plan
from tests.support.packets.asking import (
    ASKED,
    CONTROL,
    LOCAL_ADDRESSES,
    flows_of,
    input_interface,
    listed,
    place_of,
    table_of,
)
from tests.support.packets.table import TCP, UDP
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

_AF = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_KIND = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
_MACHINES = ("node", "pod1", "pod2", "pod3")
_CONTROL = CONTROL.rpartition(":")[0]  # every group has this frontend


@pytest.fixture(scope="module")
def hooked(bytecode):
    """No segment leaves a client, so that each socket goes on calling whom it called."""
    network = HookedNetwork(bytecode)
    try:
        for name in _MACHINES:
            with network.network.namespaces[name].entered():
                for tool in ("iptables", "ip6tables"):
                    rule = ("-A", "OUTPUT", "-p", "tcp", "-j", "DROP")
                    output_of(tool, *rule, timeout_s=LONGEST_S)
        yield network
    finally:
        network.close()


@dataclass(frozen=True)
class Client:
    """Who calls, as a hook sees it."""

    name: str
    known: bool = True
    meshed: bool = False
    bound: bool = False


def clients_of(flow):
    """Return who may be the source of a flow; bound to an address is the node alone."""
    name = place_of(flow.source)
    if name not in _MACHINES or flow.protocol not in _KIND:
        return []
    if name == "node":
        return [Client(name), Client(name, bound=True)]
    return [Client(name), Client(name, known=False), Client(name, meshed=True)]


class Left:
    """To tc: the socket calls whom it was asked to."""

    def __repr__(self):
        return "left"


class Refused:
    """In the call."""

    def __repr__(self):
        return "refused"


LEFT, REFUSED = Left(), Refused()


def expected(table, flow, client):
    """Return what a hook must do: LEFT, REFUSED, or the endpoints that it may choose."""
    packet = Packet(
        flow.source, flow.destination, flow.port, flow.protocol, input_interface(flow.source)
    )
    verdict = resolve(table, packet, LOCAL_ADDRESSES)
    if isinstance(verdict, Pass | Drop) or not client.known or client.meshed:
        return LEFT
    entry = table.service_ports.get(verdict.service)
    if verdict.via is Via.LOAD_BALANCER and entry.sources is not None:
        return LEFT
    if isinstance(verdict, Reject):
        # No packet follows a UDP socket's connect: it may be all about the route to an address.
        return LEFT if entry is None and flow.protocol is UDP else REFUSED
    unbound_host = client.name == "node" and not client.bound
    origin = origin_of(table.rules, packet, LOCAL_ADDRESSES)
    if decide(entry, verdict.via, table.rules, origin).masquerade.applies and not unbound_host:
        return LEFT
    if entry.affinity_timeout_s and unbound_host:
        return LEFT
    return frozenset((target.address, target.port) for target in verdict.targets)


def call(flow, client):
    """Connect; return REFUSED, LEFT, or whom the kernel's socket really calls."""
    with contextlib.closing(socket.socket(_AF[flow.family], _KIND[flow.protocol])) as caller:
        caller.setblocking(False)
        if client.bound:
            caller.bind((flow.source, 0))
        code = caller.connect_ex((flow.destination, flow.port))
        if code == errno.ECONNREFUSED:
            return REFUSED
        if code not in (0, errno.EINPROGRESS):
            return os.strerror(code)
        called = peer_of(caller, flow.family)
    return LEFT if called == (flow.destination, flow.port) else called


def mismatches(hooked, table, asked):
    """Call by each client, and yield what hooks did otherwise than they must."""
    for name in _MACHINES:
        with hooked.client(name):
            for flow, client in asked:
                if client.name != name:
                    continue
                want, got = expected(table, flow, client), call(flow, client)
                if got != want and not (isinstance(want, frozenset) and got in want):
                    yield f"{flow} by {client}: wanted {want}, got {got}"


def program(hooked, group, family):
    """Hold a group's table; return its flows by their clients."""
    table = table_of(group, family)
    hooked.families[family].program(table)
    hooked.tell_pods(family, table.rules.local_pods)
    forget_pods(hooked.families[family])
    return table, [(f, c) for f in flows_of(group, family) for c in clients_of(f)]


@pytest.mark.parametrize(("group", "family"), ASKED)
def test_hooks_translate_what_they_know_and_nothing_else(hooked, group, family):
    table, asked = program(hooked, group, family)
    pods = hooked.pods(family)
    try:
        wrong = list(mismatches(hooked, table, [each for each in asked if not each[1].known]))
        hooked.know_pods(family, pods, plan.in_family(_CONTROL, family))
        plain = [each for each in asked if each[1].known and not each[1].meshed]
        wrong += mismatches(hooked, table, plain)
        hooked.mesh_pods(family)
        wrong += mismatches(hooked, table, [each for each in asked if each[1].meshed])
    finally:
        pods.close()

    assert not wrong, listed(wrong)
