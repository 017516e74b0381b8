"""A cluster for all tests here, and in it two nodes that differ in what runs there alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

import pytest

from tests.cluster.beside.asking import ask
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.original import VERBOSE, Original
from tests.support.cluster.place import Place
from tests.support.net.plan import FAR1, POD1
from tests.support.node.cluster import both
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

HEALTH_CHECK = 32050
HEALTH_CHECK_OF_NOBODY = 32060
# Something of every kind, so that kube-proxy has each kind of chain.
OBJECTS = (
    *both("idle", "10.96.0.30", ports=(port(80, node_port=30030),)),
    *both(
        "edge",
        "10.96.0.50",
        POD1,
        FAR1,
        ports=(port(80, node_port=30050),),
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        healthCheckNodePort=HEALTH_CHECK,
        load_balancer=({"ip": "203.0.113.50"},),
        loadBalancerSourceRanges=["203.0.113.0/24"],
        sessionAffinity="ClientIP",
    ),
    *both(
        "far",
        "10.96.0.60",
        FAR1,
        ports=(port(80, node_port=30060),),
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        healthCheckNodePort=HEALTH_CHECK_OF_NOBODY,
    ),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes of one cluster."""

    theirs: Place
    ours: Place


@pytest.fixture(scope="package")
def plane(tmp_path_factory):
    """An API server of our own: the nodes of `pair` outlive the tests."""
    with ControlPlane(tmp_path_factory.mktemp("beside")) as plane:
        for each in OBJECTS:
            plane.api.apply(dict(each))
        yield plane


@pytest.fixture(scope="package")
def pair(tmp_path_factory, plane):
    """The real kube-proxy on one node and kproxy on its twin, for tests that only look."""
    folder = tmp_path_factory.mktemp("pair")
    theirs = Place(folder / "theirs", "nft", plane)
    ours = Place(folder / "ours", "nft", plane)
    original = original_on(theirs)
    try:
        ours.ready(VERBOSE)
        original.ready()
        for place in (theirs, ours):
            until(partial(checked, place), within_s=LONGEST_S, what="its health check ports")
        yield Pair(theirs, ours)
    finally:
        original.kill()
        theirs.close()
        ours.close()


def original_on(place, mode="iptables"):
    """Start the real kube-proxy with a place's configuration; `mode` is the one it works in."""
    document = json.loads(place.config.read_text())
    del document["kproxy"]
    folder = place.config.with_name("original")
    return Original(place.node, folder, {**document, "mode": mode})


def checked(place):
    """Say whether the health check ports of a node answer: they open after its rules are there."""
    try:
        return all(ask(place, each, "/") for each in (HEALTH_CHECK, HEALTH_CHECK_OF_NOBODY))
    except ConnectionRefusedError:
        return False


@pytest.fixture
def start_original():
    """Start the real kube-proxy on a place and wait until it has written its rules."""
    started = []

    def start(place, mode="iptables"):
        started.append(original_on(place, mode))
        return started[-1].ready()

    yield start
    for each in started:
        each.kill()
