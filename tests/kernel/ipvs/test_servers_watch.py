"""The kernel prints virtual servers as what watches them expects."""

import re
import socket
from pathlib import Path

import pytest

from backends.ipvs.render.entries import packed
from backends.ipvs.render.marks import FIRST_MARK
from backends.kernel.virtual_servers import Destination, Server, Settings, VirtualServers
from kproxy.core.addresses import Family
from tests.support.ipvs.printed import PRINTED

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

VIP = {Family.IPV4: "10.96.0.{}", Family.IPV6: "fd00:96::{}"}
POD = {Family.IPV4: "10.1.0.{}", Family.IPV6: "fd00:1::{}"}
BLOCK = re.compile(r"^\S.*\n(?:  -> [0-9A-F\[].*\n)*", re.MULTILINE)
TIMEOUT_S = 10800
IN_JIFFIES = re.compile(r"persistent \d+")


def at(family, number, protocol, port):
    """A virtual server at an address."""
    return Server(family, protocol, packed(VIP[family].format(number)), port)


def behind(family, number, port=8080):
    """An endpoint."""
    return Destination(packed(POD[family].format(number)), port)


def blocks(text):
    """What is printed of each virtual server, in any order, however fast the kernel's time runs."""
    found = BLOCK.findall(IN_JIFFIES.sub("persistent", text))
    return sorted(sorted(block.splitlines()) for block in found)


def test_what_is_printed_is_what_the_watch_is_tested_with():
    with VirtualServers("making") as kernel:
        for family in Family:
            tcp, udp = at(family, 1, socket.IPPROTO_TCP, 80), at(family, 2, socket.IPPROTO_UDP, 53)
            sctp = at(family, 3, socket.IPPROTO_SCTP, 2905)
            marked = Server(family, mark=FIRST_MARK + 7)
            settings = (
                (tcp, Settings("rr")),
                (udp, Settings("rr", 1, TIMEOUT_S)),
                (sctp, Settings("wlc")),
                (marked, Settings("mh")),
            )
            kernel.put_servers(settings)
            destinations = [
                (tcp, behind(family, 2)),
                (udp, behind(family, 2, 53)),
                (marked, behind(family, 2)),
            ]
            if family is Family.IPV4:
                destinations.append((tcp, behind(family, 3)))
            kernel.put_destinations(destinations, weight=1)
    assert blocks(Path("/proc/thread-self/net/ip_vs").read_text()) == blocks(PRINTED)
