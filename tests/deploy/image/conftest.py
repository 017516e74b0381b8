"""The image, a node, and pods on it."""

from __future__ import annotations

import contextlib

import pytest

from kproxy.core.addresses import Family
from tests.deploy.image.building import build
from tests.deploy.image.installed import volumes
from tests.deploy.image.pods import Pod
from tests.support.cluster.relay import Relay
from tests.support.ebpf.place import Place
from tests.support.node.node import Node


@pytest.fixture(scope="session")
def image():
    """The image of this source tree; building it takes a minute where nothing of it is cached."""
    return build()


@pytest.fixture
def place(tmp_path):
    """Where the node's eBPF programs live."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["nft", "legacy"])
def node(request, tmp_path):
    """A node whose kubelet uses one of the variants of iptables."""
    node = Node(tmp_path / "node", request.param)
    for family in Family:
        node.iptables(family, "-t mangle -N KUBE-IPTABLES-HINT")
    yield node
    node.close()


@pytest.fixture
def pod_of(image, node, place, control_plane, tmp_path):
    """A function that makes the pod of what was installed, ready to start its containers."""
    with Relay(control_plane.port, port=0, entered=node.network.node.entered) as relay:
        pods = []

        def make(installed):
            folder = tmp_path / f"pod{len(pods)}"
            folder.mkdir()
            filled = volumes(installed, control_plane, node, place, folder, port=relay.port)
            host, pid = node.network.node, installed.pod.host_pid
            pods.append(Pod(image, folder, host=host, host_pid=pid, volumes=filled))
            return pods[-1]

        yield make
        with contextlib.ExitStack() as closing:
            for pod in pods:
                closing.callback(pod.close)
