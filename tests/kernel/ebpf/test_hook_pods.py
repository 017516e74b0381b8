"""What the agent finds out about namespaces whose sockets called a Service."""

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from backends.ebpf.driver import device_layout
from backends.ebpf.driver.device_layout import DeviceFlag
from backends.ebpf.driver.namespaces import Namespaces
from backends.ebpf.driver.pods import PodFlag
from backends.ebpf.render.layout import packed
from backends.kernel import namespaces
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.support.commands import output_of
from tests.support.ebpf.socket_hooks import HookedNetwork, forget_pods
from tests.support.net.namespace import Namespace
from tests.support.tables import service_port, table, vip
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

_ADDRESS = {Family.IPV4: "10.1.0.77", Family.IPV6: "fd00:1::77"}
_SECOND = {Family.IPV4: "10.1.0.78", Family.IPV6: "fd00:1::78"}
_TOOL = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
_NODAD = 0x02
_NO_FLAGS = DeviceFlag(0)
_numbers = itertools.count()
# Runs until its stdin ends; makes one call first, from the hooks' control group.
_CALLER = """
import socket, sys
open(sys.argv[1], "w").write("0")
socket.socket(int(sys.argv[2]), socket.SOCK_DGRAM).connect((sys.argv[3], 80))
print(flush=True)
sys.stdin.read()
"""


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class Pod:
    """A namespace that a test makes; in it is a process, until `leave`."""

    def __init__(self, hooked, family):
        self.hooked, self.family = hooked, family
        self.namespace = Namespace("pod")
        self.devices = []
        with self.namespace.entered():
            self.cookie = namespaces.cookie()
            self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)

    def join(self, *, flags=_NO_FLAGS):
        """Join it to the node by a device, which the programs know."""
        name = f"test{next(_numbers)}"
        with self.hooked.network.node.entered(), IPRoute() as netlink:
            peer = {"ifname": f"eth{len(self.devices)}", "net_ns_fd": self.namespace.fd}
            netlink.link("add", ifname=name, kind="veth", peer=peer)
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link("set", index=index, state="up")
        with self.namespace.entered(), IPRoute() as netlink:
            (own,) = netlink.link_lookup(ifname=f"eth{len(self.devices)}")
            netlink.link("set", index=own, state="up")
            if not self.devices:
                netlink.route("add", dst="default", oif=own, family=_af(self.family))
        self.devices.append((name, own))
        held = self.hooked.families[self.family].maps["devices"]
        value = device_layout.device(flags, 0, bytes(6))
        held.update(device_layout.number(index), value)

    def address(self, address):
        with self.namespace.entered(), IPRoute() as netlink:
            bits = self.family.bits
            netlink.addr(
                "add",
                index=self.devices[0][1],
                address=address,
                prefixlen=bits,
                ifa_flags=_NODAD,
            )

    def run(self, *command):
        with self.namespace.entered():
            output_of(*command, timeout_s=LONGEST_S)

    def call(self):
        """Call a Service, by a socket of this process's; without an address it fails later."""
        with (
            self.namespace.entered(),
            self.hooked.joined(),
            contextlib.suppress(OSError),
            socket.socket(_af(self.family), socket.SOCK_DGRAM) as caller,
        ):
            caller.connect((vip(self.family, 1), 80))

    def leave(self):
        self._process.stdin.close()
        self._process.wait()

    def close(self):
        if not self._process.stdin.closed:
            self.leave()
        self.namespace.close()
        with self.hooked.network.node.entered(), IPRoute() as netlink:
            for name, _ in self.devices:
                with contextlib.suppress(Exception):
                    netlink.link("del", ifname=name)


def _af(family):
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6


@pytest.fixture(scope="module")
def hooked(bytecode):
    network = HookedNetwork(bytecode)
    try:
        for family in Family:
            service = service_port(family, 1, [12], protocol=Protocol.UDP, affinity_s=60)
            network.families[family].program(table(family, service))
        yield network
    finally:
        network.close()


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pod(hooked, family):
    made = Pod(hooked, family)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pods(hooked, family, clock):
    forget_pods(hooked.families[family])
    made = hooked.pods(family, clock)
    while made.tend(0):  # what other tests reported
        pass
    clock.now_s += 100.0
    while made.tend(1.0):
        pass
    clock.now_s += 1.0
    forget_pods(hooked.families[family])
    yield made
    made.close()


def entry(pod):
    """Return what the map says of a namespace: its address and its flags, None if nothing."""
    key = pod.cookie.to_bytes(8, sys.byteorder)
    value = pod.hooked.families[pod.family].maps["pods"].lookup(key)
    width = pod.family.bits // 8
    return value and (value[:width], PodFlag.from_bytes(value[width:], sys.byteorder))


def settled(pods):
    while pods.tend(1.0):
        pass


def known(pod, flags=PodFlag.KNOWN):
    return packed(_ADDRESS[pod.family]), flags


def unspecified(pod, flags):
    return bytes(pod.family.bits // 8), flags


def test_a_namespace_is_known_after_its_first_call(pods, pod):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    assert entry(pod) is None
    pod.call()
    assert entry(pod) == unspecified(pod, PodFlag(0))
    settled(pods)
    assert entry(pod) == known(pod)


def test_the_process_that_called_leads_to_its_namespace(hooked, family, pods, pod, monkeypatch):
    monkeypatch.setattr(Namespaces, "search", lambda self: pytest.fail("needless"))
    pod.join()
    pod.address(_ADDRESS[family])
    command = [sys.executable, "-c", _CALLER, hooked.cgroup / "cgroup.procs"]
    with (
        pod.namespace.entered(),
        subprocess.Popen(
            [*command, str(int(_af(family))), vip(family, 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as caller,
    ):
        caller.stdout.readline()
        settled(pods)
        caller.communicate()
    assert entry(pod) == known(pod)


def test_a_namespace_met_before_its_address_is_known_later(pods, pod, clock):
    pod.join()
    pod.call()
    settled(pods)
    assert entry(pod) == unspecified(pod, PodFlag(0))
    pod.address(_ADDRESS[pod.family])
    clock.now_s += 1.0
    settled(pods)
    assert entry(pod) == known(pod)


def test_namespaces_that_are_met_at_once_are_known_in_turn(hooked, pods, pod, clock):
    other = Pod(hooked, pod.family)
    try:
        for each in (pod, other):
            each.join()
            each.address(_ADDRESS[pod.family])
            each.call()
            settled(pods)  # looks through all processes once a second at the most
        clock.now_s += 1.0
        settled(pods)
        assert entry(pod) == entry(other) == known(pod)
    finally:
        other.close()


def test_what_tc_began_to_serve_of_an_unconnected_socket_stays_with_tc(hooked, pods, pod):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    reasons = hooked.families[pod.family].reasons
    with pod.namespace.entered(), hooked.joined():
        caller = socket.socket(_af(pod.family), socket.SOCK_DGRAM)
    with caller:
        before = reasons["SOCKET_TRANSLATED"]
        for _ in range(2):
            caller.sendto(b"question", (vip(pod.family, 1), 80))
            settled(pods)
            assert entry(pod) == known(pod)
        assert reasons["SOCKET_TRANSLATED"] == before


def test_a_mesh_is_noticed_when_its_rules_come_and_go(pods, pod, clock):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    tool = _TOOL[pod.family]
    pod.run(tool, "-t", "nat", "-S")  # makes the table, in which are no rules
    pod.call()
    settled(pods)
    assert entry(pod) == known(pod)
    rule = ("OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001")
    for command, flags in (("-A", PodFlag.KNOWN | PodFlag.MESHED), ("-D", PodFlag.KNOWN)):
        pod.run(tool, "-t", "nat", command, *rule)
        clock.now_s += 30.0
        settled(pods)
        assert entry(pod) == known(pod, flags)


@pytest.mark.parametrize("tool", ["legacy", "nft", "inet"])
def test_nat_rules_of_any_kind_make_a_mesh(pods, pod, tool):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    if tool == "inet":
        pod.run("nft", "add table inet mesh")
        pod.run("nft", "add chain inet mesh out { type nat hook output priority -100 ; }")
        pod.run("nft", "add rule inet mesh out tcp dport 80 redirect to :15001")
    else:
        rule = ("-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001")
        pod.run(f"{_TOOL[pod.family]}-{tool}", *rule)
    pod.call()
    settled(pods)
    assert entry(pod) == known(pod, PodFlag.KNOWN | PodFlag.MESHED)


def test_the_device_tells_whether_it_is_a_local_pod(pods, pod):
    pod.join(flags=DeviceFlag.POD)
    pod.address(_ADDRESS[pod.family])
    pod.call()
    settled(pods)
    assert entry(pod) == known(pod, PodFlag.KNOWN | PodFlag.DEVICE)


def test_of_several_addresses_none_is_the_pods_for_affinity(hooked, pods, pod):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    pod.address(_SECOND[pod.family])
    pod.call()
    settled(pods)
    assert entry(pod) == unspecified(pod, PodFlag.KNOWN)
    reasons = hooked.families[pod.family].reasons
    before = reasons["LEFT_UNKNOWN_SOURCE"]
    pod.call()
    assert reasons["LEFT_UNKNOWN_SOURCE"] == before + 1


@pytest.mark.parametrize("joined", [0, 2])
def test_a_namespace_that_is_joined_otherwise_stays_unknown(pods, pod, joined):
    for _ in range(joined):
        pod.join()
    if joined:
        pod.address(_ADDRESS[pod.family])
    pod.call() if joined else pod.run("true")
    settled(pods)
    assert entry(pod) == (unspecified(pod, PodFlag(0)) if joined else None)


def test_a_namespace_that_went_is_forgotten(pods, pod, clock):
    pod.join()
    pod.address(_ADDRESS[pod.family])
    pod.call()
    settled(pods)
    pod.leave()
    for expected in (unspecified(pod, PodFlag(0)), None):
        clock.now_s += 60.0
        settled(pods)
        assert entry(pod) == expected


def test_a_new_agent_looks_at_what_an_earlier_one_knew(hooked, family, pods, pod, clock):
    pod.join()
    pod.call()
    settled(pods)
    pod.address(_ADDRESS[family])
    later = hooked.pods(family, clock)
    settled(later)
    later.close()
    assert entry(pod) == known(pod)


def refused(*_):
    raise PermissionError


@pytest.mark.parametrize(
    ("hindered", "told"),
    [
        ("sight", "no process of a pod is in sight (hostPID is off)"),
        ("stat", "other processes must not be looked at (without CAP_SYS_PTRACE)"),
        ("setns", "other network namespaces must not be entered (without CAP_SYS_ADMIN)"),
    ],
)
def test_without_access_to_processes_pods_are_left_to_tc_which_is_told_once(
    hooked, family, pod, clock, tmp_path, caplog, monkeypatch, hindered, told
):
    forget_pods(hooked.families[family])
    pod.join()
    pod.address(_ADDRESS[family])
    with hooked.network.node.entered():
        seen = Namespaces(tmp_path if hindered == "sight" else Path("/proc"))
    pods = hooked.pods(family, clock, seen)
    settled(pods)
    clock.now_s += 1.0
    if hindered == "stat":
        monkeypatch.setattr(os, "stat", refused)
    if hindered == "setns":
        monkeypatch.setattr(namespaces, "_enter", refused)
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                pod.call()
                settled(pods)
                assert entry(pod) == unspecified(pod, PodFlag(0))
    finally:
        pods.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{told}: pods' calls are served by tc, not in their sockets"
    ]
