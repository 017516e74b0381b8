"""The agent in ebpf mode out of the image, with the privileges that the manifests give it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from dataclasses import replace

import pytest

from kproxy.core.addresses import Family
from tests.deploy.image.installed import ours
from tests.deploy.pod_template import pod_template
from tests.deploy.shipped import CLEANUP, kustomized, of_kind
from tests.support.net.plan import CLIENT, FAR1, LOOPBACK, NODE, POD1, POD2, POD3
from tests.support.node.cluster import NODE as NODE_OBJECT
from tests.support.node.cluster import both
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

# Building the image from nothing does not count.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.cluster,
    pytest.mark.timeout(120, func_only=True),
]

ON_NFT = pytest.mark.parametrize("node", ["nft"], indirect=True)
CLUSTER_IP = "10.96.0.7"
SERVED = {
    f"{CLUSTER_IP}:80": frozenset({POD1, FAR1}),
    f"{NODE}:30080": frozenset({POD1, FAR1}),
}
MOVED = dict.fromkeys(SERVED, frozenset({POD2}))
SOURCES = (CLIENT, POD3)
ON_LOOPBACK = {f"{LOOPBACK}:30080": frozenset({POD1, FAR1})}
SAID_WITHOUT = {
    "NET_ADMIN": "needs CAP_NET_ADMIN",
    # The runtime's seccomp profile lets nobody else call bpf(2).
    "SYS_ADMIN": "EPERM (Operation not permitted)",
    "SYS_PTRACE": "(without CAP_SYS_PTRACE): pods' calls are served by tc, not in their sockets",
}
ON_THE_NODE = {"sources": (LOOPBACK,), "families": (Family.IPV4,)}
_METRICS = "http://127.0.0.1:10249/metrics"
# A pod that calls a Service as long as it runs.
_CALLING = """
import socket
import time
while True:
    try:
        socket.create_connection(("CLUSTER_IP", 80), timeout=1).close()
    except OSError:
        pass
    time.sleep(0.05)
""".replace("CLUSTER_IP", CLUSTER_IP)


@pytest.fixture(autouse=True)
def _services(control_plane):
    apply(control_plane, NODE_OBJECT, *edge(POD1, FAR1))


@ON_NFT
def test_our_pod_serves_and_what_it_wrote_serves_without_it(pod_of, node, place, control_plane):
    agent = start_ours(pod_of)
    agent.wait_for("ready: ")

    with place.joined():
        assert node.answers(SERVED, sources=SOURCES) == []
        assert node.answers(ON_LOOPBACK, **ON_THE_NODE) == []
    apply(control_plane, *edge(POD2))
    until(
        lambda: node.answers(MOVED, sources=SOURCES) == [],
        within_s=LONGEST_S,
        what="the packets follow",
    )

    assert errors(agent) == []
    assert "Read-only file system" not in agent.said(), "what it may not set is set already"
    assert agent.written() == [], "its programs are compiled already"
    assert agent.stop() == 0
    with place.joined():
        assert node.answers(MOVED, sources=SOURCES) == []


@ON_NFT
def test_our_pod_translates_what_pods_call_in_their_sockets(pod_of, node, place):
    start_ours(pod_of).wait_for("ready: ")

    with calling(node, place):
        until(
            lambda: translated_in_sockets(node) > 0,
            within_s=LONGEST_S,
            what="a call is translated in the socket",
        )


@ON_NFT
@pytest.mark.parametrize("missing", list(SAID_WITHOUT))
def test_our_pod_has_no_capability_that_it_could_do_without(pod_of, node, place, missing):
    agent = start_ours(pod_of, without=missing)

    with calling(node, place):
        agent.wait_for(SAID_WITHOUT[missing])


@pytest.mark.parametrize("node", ["legacy"], indirect=True)
def test_beside_legacy_tables_it_needs_a_raw_socket(pod_of, node):
    start_ours(pod_of, without="NET_RAW").wait_for("needs CAP_NET_RAW")


def test_our_pod_has_no_other_capabilities():
    """Whoever adds one shows above what it is good for."""
    (proxy,) = ours("ebpf").pod.main
    assert proxy.capabilities == {*SAID_WITHOUT, "NET_RAW"}


@ON_NFT
def test_clean_up_removes_all_of_it(pod_of, node, place):
    agent = start_ours(pod_of)
    agent.wait_for("ready: ")
    assert agent.stop() == 0
    (clean_up,) = pod_template(of_kind(kustomized(CLEANUP), "DaemonSet"), {}).init

    said = pod_of(ours("ebpf")).run(clean_up)

    assert "ebpf IPv4: removed" in said
    assert "ebpf IPv6: removed" in said
    assert not (place.bpffs / "kproxy").exists()
    for family in Family:
        assert "kproxy" not in node.iptables(family, "-save")


def start_ours(pod_of, *, without=""):
    """Run our pod's init container, start its proxy, and return that."""
    installed = ours("ebpf")
    (prepare,), (proxy,) = installed.pod.init, installed.pod.main
    pod = pod_of(installed)
    pod.run(prepare)
    return pod.start(replace(proxy, capabilities=proxy.capabilities - {without}))


def edge(*endpoints):
    return both("edge", CLUSTER_IP, *endpoints, ports=(port(80, node_port=30080),))


def apply(control_plane, *objects):
    for each in objects:
        control_plane.api.apply(json.loads(json.dumps(each)))


@contextlib.contextmanager
def calling(node, place):
    """Let a pod of the node call the Service all the time."""
    with node.network.namespaces["pod3"].entered():
        pod = subprocess.Popen(place.inside(sys.executable, "-c", _CALLING))
    try:
        yield
    finally:
        pod.kill()
        pod.wait()


def errors(agent):
    """Return the lines of an agent's log that say what it could not do."""
    lines = [line.split(maxsplit=2) for line in agent.said().splitlines()]
    return [" ".join(line) for line in lines if line[1] == "error"]


def translated_in_sockets(node):
    """Return how many calls the metrics count as translated in a socket, of IPv4."""
    with node.network.node.entered(), urllib.request.urlopen(_METRICS, timeout=LONGEST_S) as said:
        lines = said.read().decode().splitlines()
    wanted = 'kproxy_ebpf_outcomes_total{ip_family="IPv4",reason="socket_translated"} '
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))
