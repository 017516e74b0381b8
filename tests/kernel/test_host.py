"""What the host says of itself."""

import select
import socket
import struct
import subprocess
import sys
from contextlib import closing

import pytest

from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from kproxy.proxy.host import address_events, host_addresses, host_networks
from tests.support.net.namespace import Namespace
from tests.support.netlink import DONE, INTERRUPTED, SOCKET, Script, attribute, message
from tests.support.waiting import LONGEST_S

_NEW_ADDRESS, _IFA_LOCAL = 20, 2  # linux/rtnetlink.h, linux/if_addr.h
_HEAVY = ("pyroute2", "setuptools", "pkg_resources")


@pytest.fixture
def node():
    return Namespace("node")


def ip(node, *commands):
    for command in commands:
        with node.entered():
            subprocess.run(["ip", *command.split()], check=True)


@pytest.mark.kernel
def test_all_addresses_are_found_of_each_family_alone(node):
    ip(
        node,
        "link set lo up",
        "addr add 192.0.2.1/24 dev lo",
        "addr add 2001:db8::1/64 dev lo nodad",
        "link add here type veth peer name there",
        "addr add 198.51.100.1 peer 198.51.100.2 dev here",
    )
    with node.entered():
        assert host_addresses(Family.IPV4) == {"127.0.0.1", "192.0.2.1", "198.51.100.1"}
        assert host_addresses(Family.IPV6) == {"::1", "2001:db8::1"}


@pytest.mark.kernel
def test_the_networks_around_addresses_are_found_and_no_lone_address(node):
    ip(
        node,
        "link set lo up",
        "link add here type veth peer name there",
        "addr add 192.0.2.1/24 dev here",
        "addr add 192.0.2.2/24 dev here",
        "addr add 192.0.2.3/25 dev there",
        "addr add 198.51.100.1 peer 198.51.100.2 dev there",
        "addr add 203.0.113.1/0 dev lo",
        "addr add 10.96.0.10/32 dev lo",
        "addr add 2001:db8::1/64 dev here nodad",
        "addr add 2001:db8:9::1 peer 2001:db8:9::2/128 dev there nodad",
        "addr add fd00:96::a/128 dev lo nodad",
    )
    with node.entered():
        assert set(map(str, host_networks())) == {
            "127.0.0.0/8",
            "192.0.2.0/24",
            "192.0.2.0/25",
            "198.51.100.2/32",
            "2001:db8::/64",
            "2001:db8:9::2/128",
        }


def is_readable(events, within_s=0.0):
    poll = select.poll()  # `select` takes no descriptor above 1023
    poll.register(events, select.POLLIN)
    return poll.poll(1000 * within_s) != []


@pytest.mark.kernel
def test_addresses_that_come_and_go_are_told(node):
    ip(node, "link add here type veth peer name there")
    with node.entered(), closing(address_events()) as events:
        assert not is_readable(events)
        for change in (
            "addr add 192.0.2.1/24 dev here",
            "addr del 192.0.2.1/24 dev here",
            "addr add 2001:db8::1/64 dev here nodad",
            "link del here",
        ):
            ip(node, change)
            # The kernel tells of an IPv6 address from a thread of its own.
            assert is_readable(events, LONGEST_S), change
            events.drain()
            assert not is_readable(events)


@pytest.mark.kernel
def test_more_events_than_fit_count_as_told(node):
    lines = "".join(f"addr {what} 192.0.2.1/24 dev here\n" for what in ("add", "del")) * 400
    ip(node, "link add here type veth peer name there")
    with node.entered(), closing(address_events()) as events:
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        events.drain()
        ip(node, "addr add 192.0.2.1/24 dev here")
        assert is_readable(events)
        events.drain()


@pytest.mark.kernel
def test_hundreds_of_addresses_are_found(node):
    many = [f"192.0.2.{n}" for n in range(1, 250)] + [f"198.51.100.{n}" for n in range(1, 250)]
    lines = "".join(f"addr add {address}/32 dev lo\n" for address in many)
    with node.entered():
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        assert host_addresses(Family.IPV4) == {*many}


@pytest.mark.kernel
def test_a_host_without_addresses_has_none(node):
    with node.entered():
        assert host_addresses(Family.IPV4) == frozenset()


def test_a_question_that_cannot_be_asked_may_be_asked_later(monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(SOCKET, refuse)
    with pytest.raises(BackendError, match=r"IPv4 addresses: .*Too many open files") as refused:
        host_addresses(Family.IPV4)
    assert refused.value.transient


def told(address: str, *, flags: int = 0) -> bytes:
    """Return the message of an address; a disturbed listing may lack others."""
    body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 1)
    body += attribute(_IFA_LOCAL, socket.inet_aton(address))
    return struct.pack("=IHHII", 16 + len(body), _NEW_ADDRESS, flags, 1, 0) + body


def test_a_listing_that_changes_disturb_is_taken_again(monkeypatch):
    disturbed = told("192.0.2.1", flags=INTERRUPTED)
    answers = (disturbed, message(DONE), told("192.0.2.1") + told("192.0.2.2"), message(DONE))
    script = Script(answers)
    monkeypatch.setattr(SOCKET, script)
    assert host_addresses(Family.IPV4) == {"192.0.2.1", "192.0.2.2"}
    assert len(script.sent) == 2


def test_a_listing_that_is_always_disturbed_may_be_asked_for_later(monkeypatch):
    monkeypatch.setattr(SOCKET, Script([message(DONE, flags=INTERRUPTED)] * 5))
    with pytest.raises(BackendError, match="changed while they were listed") as refused:
        host_addresses(Family.IPV4)
    assert refused.value.transient


@pytest.mark.kernel
def test_the_agent_loads_no_library_that_it_does_not_need():
    """Each of them holds more than 10 MB."""
    program = (
        "import sys, kproxy.cli.run, backends.iptables.path\n"
        "from backends.kernel.xtables.in_process import no_setuptools\n"
        "with no_setuptools():\n"
        "    import iptc\n"
        f"print([name for name in {_HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
