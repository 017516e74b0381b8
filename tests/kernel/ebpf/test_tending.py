"""The ebpf data path looks after itself, whatever of it the kernel refuses."""

from __future__ import annotations

import contextlib
import logging

import pytest

from backends.ebpf import places
from backends.ebpf.driver.sides import Side
from backends.ebpf.options import SocketHooks
from backends.ebpf.path import EbpfPath
from backends.kernel.bpf import links
from kproxy.core.addresses import Family
from tests.support.contract import Follower, tend
from tests.support.ebpf.devices import ip, link_numbers
from tests.support.ebpf.on_node import options
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace
from tests.support.tables import table

pytestmark = pytest.mark.kernel


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.cgroup.mkdir(exist_ok=True)
    place.close()


@pytest.fixture
def node():
    node = Namespace("node")
    with node.entered():
        ip("link set lo up")
        yield node
    node.close()


def opened(place):
    return EbpfPath(options(place, SocketHooks.ALL)).backend(Family.IPV4)


@pytest.fixture
def backend(node, place):
    del node  # is entered
    backend = opened(place)
    Follower(backend).apply(table(Family.IPV4))
    yield backend
    backend.close()


def test_a_restart_leaves_nothing_of_former_versions_when_all_is_tended(backend, place):
    """It takes up pods' devices after all else, and may end then."""
    backend.close()
    ip("link add pod type veth peer name eth0", "link set pod up")
    former = places.family_folder(place.bpffs, Family.IPV4) / "former-0"
    former.mkdir()
    with contextlib.closing(opened(place)) as serving:
        tend(serving)
    assert not former.exists()


@pytest.mark.parametrize("restarted", [False, True])
def test_devices_are_followed_while_hooks_cannot_be_attached(backend, place, caplog, restarted):
    with contextlib.closing(opened(place) if restarted else backend) as serving:
        with links.pinned(places.hooks(place.bpffs, Family.IPV4) / "connect4") as link:
            link.detach()
        place.cgroup.rmdir()

        ip("link add pod type veth peer name eth0", "link set pod up")
        with caplog.at_level(logging.WARNING):
            tend(serving)
    assert all(link_numbers("pod", side) for side in Side)
    assert "opening the control group" in caplog.text
