"""The agent out of the image, as the manifests start it, against a real API server."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import replace

import pytest

from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.deploy.image.installed import kubeadms, ours
from tests.support.net.plan import CLIENT, FAR1, LOOPBACK, NODE, POD1, POD2, POD3
from tests.support.node.cluster import NODE as NODE_OBJECT
from tests.support.node.cluster import both
from tests.support.node.conversations import PORT, Conversations
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

# Building the image from nothing does not count.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.cluster,
    pytest.mark.timeout(120, func_only=True),
]

STICKY = "10.96.0.8:80"
SERVICES = (
    *both("edge", "10.96.0.7", POD1, FAR1, ports=(port(80, node_port=30080),)),
    *both("sticky", "10.96.0.8", POD2, sessionAffinity="ClientIP"),
    *both("idle", "10.96.0.9"),
)
SERVED = {
    "10.96.0.7:80": frozenset({POD1, FAR1}),
    f"{NODE}:30080": frozenset({POD1, FAR1}),
    STICKY: frozenset({POD2}),
    "10.96.0.9:80": frozenset({"refused"}),
}
MOVED = both("edge", "10.96.0.7", POD2, ports=(port(80, node_port=30080),))
SERVED_MOVED = {
    **SERVED,
    "10.96.0.7:80": frozenset({POD2}),
    f"{NODE}:30080": frozenset({POD2}),
}
SOURCES = (CLIENT, POD3)
ON_LOOPBACK = {f"{LOOPBACK}:30080": frozenset({POD1, FAR1})}
ON_THE_NODE = {"sources": (LOOPBACK,), "families": (Family.IPV4,)}

UDP_PORT = {"name": "", "port": PORT, "protocol": "UDP"}
# iptables asks for its legacy tables, and for the index of an ipset, through a raw socket.
SAID_WITHOUT = {
    ("NET_ADMIN", "nft"): "needs CAP_NET_ADMIN",
    ("NET_ADMIN", "legacy"): "needs CAP_NET_ADMIN",
    (
        "NET_RAW",
        "nft",
    ): "no Service has sessionAffinity, as rules that name ipsets need",
    ("NET_RAW", "legacy"): "needs CAP_NET_RAW",
}


@pytest.fixture(autouse=True)
def _services(control_plane):
    apply(control_plane, NODE_OBJECT, *SERVICES)


def test_kubeadms_pod_serves_with_nothing_changed_but_its_image(pod_of, node):
    installed = kubeadms()
    (kube_proxy,) = installed.pod.main
    agent = pod_of(installed).start(kube_proxy)
    agent.wait_for("ready: ")

    assert node.answers(SERVED, sources=SOURCES) == []
    assert node.answers(ON_LOOPBACK, **ON_THE_NODE) == []
    assert errors(agent) == []
    assert agent.written() == []
    assert agent.stop() == 0
    assert node.answers(SERVED, sources=SOURCES) == [], "the rules stay"


def test_our_pod_serves_with_the_least_privileges(pod_of, node, control_plane):
    agent = start_ours(pod_of)
    agent.wait_for("ready: ")

    assert node.answers(SERVED, sources=SOURCES) == []
    assert node.answers(ON_LOOPBACK, **ON_THE_NODE) == []
    assert probe(node, "/healthz") == probe(node, "/livez") == 200
    assert errors(agent) == []

    apply(control_plane, *MOVED)
    answered(node, SERVED_MOVED, within_s=LONGEST_S)
    for family in Family:
        node.iptables(family, "-t nat -F")
        node.iptables(family, "-t filter -F")
    answered(node, SERVED_MOVED, within_s=LONGEST_S)

    assert agent.written() == []
    assert agent.stop() == 0


def test_the_flows_of_a_udp_endpoint_that_left_follow(pod_of, node, control_plane):
    dns = {"ports": (port(53, protocol="UDP"),), "slice_ports": (UDP_PORT,)}
    apply(control_plane, *both("dns", "10.96.0.10", POD1, **dns))
    start_ours(pod_of).wait_for("ready: ")
    with contextlib.closing(Conversations(node.network)) as talk:
        talk.serve(POD1, POD2)
        flows = [talk.open(CLIENT, "10.96.0.10:53", Protocol.UDP, family) for family in Family]
        assert all(flow.partner() == POD1 for flow in flows)

        apply(control_plane, *both("dns", "10.96.0.10", POD2, **dns))

        until(
            lambda: all(flow.partner(quiet_s=0.3) == POD2 for flow in flows),
            within_s=LONGEST_S,
            what="the flows follow",
        )


def test_a_setting_that_our_pod_cannot_restore_holds_up_nothing_else(pod_of, node, control_plane):
    agent = start_ours(pod_of)
    agent.wait_for("ready: ")

    node.network.node.sysctl("net/ipv4/conf/all/route_localnet", 0)
    agent.wait_for("setting net.ipv4.conf.all.route_localnet to 1: Read-only file system")
    apply(control_plane, *MOVED)

    answered(node, SERVED_MOVED, within_s=LONGEST_S)


@pytest.mark.parametrize("missing", ["NET_ADMIN", "NET_RAW"])
def test_our_pod_has_no_capability_that_it_could_do_without(pod_of, node, missing):
    agent = start_ours(pod_of, without=frozenset({missing}))

    agent.wait_for(SAID_WITHOUT[missing, node.variant])
    if (missing, node.variant) == ("NET_RAW", "nft"):
        agent.wait_for("ready: ")
        assert node.run("ipset list -n") == "", "served, but nobody is remembered"
    else:
        assert node.answers({STICKY: SERVED[STICKY]}, sources=SOURCES) != []


def test_our_pod_has_no_other_capabilities():
    """Whoever adds one shows above what it is good for."""
    (proxy,) = ours().pod.main
    assert {(name, variant) for name in proxy.capabilities for variant in ("nft", "legacy")} == set(
        SAID_WITHOUT
    )


def start_ours(pod_of, *, without=frozenset()):
    """Run our pod's init container, start its proxy, and return that."""
    installed = ours()
    (prepare,), (proxy,) = installed.pod.init, installed.pod.main
    pod = pod_of(installed)
    pod.run(prepare)
    return pod.start(replace(proxy, capabilities=proxy.capabilities - without))


def apply(control_plane, *objects):
    for each in objects:
        control_plane.api.apply(json.loads(json.dumps(each)))


def answered(node, expected, *, within_s):
    """Wait until every frontend answers as expected."""
    until(
        lambda: node.answers(expected, sources=SOURCES) == [],
        within_s=within_s,
        what=f"answers from {expected}",
    )


def errors(agent):
    """Return the lines of an agent's log that say what it could not do."""
    lines = [line.split(maxsplit=2) for line in agent.said().splitlines()]
    return [" ".join(line) for line in lines if line[1] == "error"]


def probe(node, path):
    """Return the status that the kubelet's probe of this path gets."""
    with node.network.node.entered():
        connection = http.client.HTTPConnection(LOOPBACK, 10256, timeout=LONGEST_S)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
    return status
