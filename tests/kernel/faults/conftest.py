"""Nodes for tests, with every data path, and traffic through all kinds of frontends."""

from __future__ import annotations

import itertools

import pytest

from backends.ebpf.driver import loader
from backends.ebpf.render.layout import packed
from kproxy.core.addresses import Family
from kproxy.core.objects import Protocol
from tests.kernel.faults.flowing import Flowing
from tests.support.ebpf.on_node import inhabited
from tests.support.net.plan import CLIENT, FAR1, LOOPBACK, NODE, POD1, POD2, POD3, in_family
from tests.support.node.node import DATA_PATHS, IPVS, Node
from tests.support.node.web import EVERY_FRONTEND, web_everywhere
from tests.support.waiting import LONGEST_S, until

PROTOCOLS = (Protocol.TCP, Protocol.UDP)
EVERY_WAY = list(itertools.product((CLIENT, POD3, NODE), EVERY_FRONTEND, PROTOCOLS, Family))
BY_LOOPBACK = [(LOOPBACK, f"{LOOPBACK}:30020", each, Family.IPV4) for each in PROTOCOLS]


@pytest.fixture(params=DATA_PATHS)
def variant(request):
    """A data path: a variant of iptables, ebpf, or ipvs."""
    return request.param


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def node(tmp_path, variant):
    node = Node(tmp_path / "node", variant)
    yield node
    node.close()


@pytest.fixture
def flowing_everywhere(node):
    """Conversations of all kinds with the only endpoint, and new ones, in a cgroup with hooks.

    The node's proxy runs, and its hooks, where it has some, know the pod that speaks.
    """
    node.manifests.put("web", web_everywhere(POD1))
    node.ready()
    ways = EVERY_WAY if node.data_path == IPVS else [*EVERY_WAY, *BY_LOOPBACK]
    with (
        inhabited(node.network.namespaces["pod3"]),
        node.place.joined(),
        Flowing(node.network, (POD1, POD2, POD3, FAR1), ways, connected=False) as flowing,
    ):
        until(lambda: known_to_hooks(node, POD3), within_s=LONGEST_S, what="hooks know the pod")
        yield flowing


def known_to_hooks(node, pod):
    """Say whether hooks know a pod in each family, where there are hooks."""
    for family in Family:
        pods = loader.published_map(node.place.bpffs, family, "pods")
        if pods is not None:
            with pods:
                address = packed(in_family(pod, family))
                if not any(value.startswith(address) for _, value in pods.items()):
                    return False
    return True
