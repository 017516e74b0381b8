"""A node of a test's own, with devices to follow."""

import pytest

from backends.ebpf.driver import tcx
from kproxy.core.addresses import Family
from tests.support.ebpf.devices import Node
from tests.support.net.namespace import Namespace


@pytest.fixture
def node(sources, bpffs):
    """A node for IPv4; the test is inside."""
    yield from _inside(sources, bpffs, Family.IPV4)


@pytest.fixture
def node6(sources, bpffs):
    """A node for IPv6; the test is inside."""
    yield from _inside(sources, bpffs, Family.IPV6)


def _inside(sources, bpffs, family):
    namespace = Namespace("node")
    with namespace.entered():
        node = Node(sources, bpffs, family, namespace)
        try:
            yield node
        finally:
            node.close()
    namespace.close()


@pytest.fixture(params=["tcx", "clsact"])
def either(request, node):
    """A node whose programs are attached in either way; by clsact twice where there is no tcx."""
    node.by_tcx = request.param == "tcx" and tcx.supported()
    return node
