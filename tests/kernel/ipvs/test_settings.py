"""What ipvs mode sets of a kernel that has ipvs, and what it can ask of it."""

import re
import socket
from contextlib import contextmanager
from dataclasses import replace

import pytest

from backends.ipvs.driver import schedulers
from backends.ipvs.driver.settings import NodeSettings
from backends.ipvs.render.entries import packed
from backends.kernel.virtual_servers import Server, Settings, Timeouts, VirtualServers
from backends.kube_proxy import ipvs_leftovers
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run
from tests.support.ipvs.options import PLAIN

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

CHOSEN = Timeouts(7200, 0, 30)
TIMEOUTS = "sysctl/ipvs timeouts"


@contextmanager
def others():
    """What somebody else does with ipvs."""
    with VirtualServers("disturbing") as kernel:
        yield kernel


def timeouts():
    with VirtualServers("looking") as kernel:
        return kernel.timeouts()


def test_the_kernel_has_all_settings_and_keeps_them():
    settings = NodeSettings(Family.IPV4, replace(PLAIN, strict_arp=True, timeouts=CHOSEN))
    image = settings.render()
    before = timeouts()
    settings.put(image)
    settings.settle()

    assert NodeSettings(Family.IPV6, replace(PLAIN, timeouts=CHOSEN)).observe().keys() >= {
        key for key in image if ".vs." in key
    }
    assert settings.observe() == image
    assert timeouts() == Timeouts(7200, before.tcp_fin_s, 30)


def test_timeouts_that_others_alter_are_noticed_and_put_right():
    settings = NodeSettings(Family.IPV4, replace(PLAIN, timeouts=CHOSEN))
    settings.put(settings.render())
    with others() as kernel:
        kernel.set_timeouts(Timeouts(0, 77, 0))
    assert not settings.disturbed(), "nobody chose this one"
    with others() as kernel:
        kernel.set_timeouts(Timeouts(0, 0, 301))
    assert settings.disturbed()
    assert TIMEOUTS not in settings.observe()

    settings.put([TIMEOUTS])
    assert timeouts() == Timeouts(7200, 77, 30)
    assert not settings.disturbed()


def test_a_timeout_longer_than_the_kernels_timers_is_told_and_stops_nothing():
    settings = NodeSettings(Family.IPV4, replace(PLAIN, timeouts=Timeouts(0, 0, 2**31 - 1)))
    settings.put(settings.render())
    assert TIMEOUTS in settings.observe()
    with pytest.raises(BackendError, match="setting ipvs timeouts to udp 2147483647 s: Invalid"):
        settings.settle()


def test_the_kernel_tells_which_schedulers_it_has_and_makes_no_server():
    schedulers.require("rr")
    with pytest.raises(BackendError) as refused:
        schedulers.require("nonesuch")
    assert re.search(
        r"ipvs\.scheduler: the kernel has no scheduler 'nonesuch'; available: rr, .*, sh, ",
        str(refused.value),
    )
    for never in ("none", "a_name_that_is_too_long", ""):
        with pytest.raises(BackendError, match=f"no scheduler '{never}'; available: rr, "):
            schedulers.require(never)
    with others() as kernel:
        assert kernel.servers() == []


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_what_kube_proxy_left_goes_and_nothing_of_others(family):
    stale, foreign = (
        ("172.30.0.1", "192.0.2.1") if family is Family.IPV4 else ("fd00:30::1", "2001:db8::1")
    )
    places = [
        Server(family, socket.IPPROTO_TCP, packed(address), 443) for address in (stale, foreign)
    ]
    with others() as kernel:
        kernel.put_servers((each, Settings("rr")) for each in places)
    run(f"ip link add {ipvs_leftovers.LINK} type dummy")
    run(f"ip addr add {stale} dev {ipvs_leftovers.LINK}")

    assert ipvs_leftovers.remove_virtual_servers(family) == 1
    with others() as kernel:
        assert {server for server, _ in kernel.servers()} == set(places[1:])
