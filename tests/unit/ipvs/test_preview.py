"""`kproxy render` prints what makes a table true, as commands in an order that works.

That they do is held in a kernel by tests/kernel/ipvs/test_preview.py.
"""

import re
from dataclasses import replace

import pytest

from backends.ipvs.preview import preview
from backends.kernel.virtual_servers import Timeouts
from kproxy.core.addresses import Family
from tests.support.ipvs.options import PLAIN
from tests.support.ipvs.shop import shop
from tests.support.tables import some_tables

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)


def commands(text):
    """The commands in comments."""
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def test_a_service_is_printed_as_what_makes_it():
    printed = commands(preview(some_tables(Family.IPV4)[1], PLAIN))
    assert [line for line in printed if "10.96.0.1" in line] == [
        "ipset add kproxy-ipvs-4-cluster-ip 10.96.0.1,tcp:80",
        "ipset add kproxy-ipvs-4-cluster-addresses 10.96.0.1",
        "ipvsadm -A -t 10.96.0.1:80 -s rr",
        "ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 1",
        "ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1",
        "ip route add local 10.96.0.1 dev kube-ipvs-kp table local proto 107 metric 27504",
    ]


def test_each_kind_of_server_is_printed_as_ipvsadm_wants_it():
    printed = [line for line in commands(preview(shop(Family.IPV6), PLAIN)) if "ipvsadm" in line]
    servers = [re.sub(r"0x\w+", "MARK", line) for line in printed if "-A" in line]
    assert sorted(servers) == [
        "ipvsadm -A --sctp-service [fd00:30::3]:80 -s rr",
        "ipvsadm -A -f MARK -6 -s mh",
        "ipvsadm -A -t [2001:db8:9::9]:443 -s rr -p 60",
        "ipvsadm -A -t [fd00:30::1]:80 -s rr",
        "ipvsadm -A -t [fd00:30::6]:80 -s rr -p 60",
        "ipvsadm -A -t [fd00:30::7]:80 -s rr -p 10800",
        "ipvsadm -A -u [fd00:30::2]:80 -s rr",
    ]
    assert not [line for line in printed if "-a -f" in line and " -6 -r [" not in line]


def test_a_scheduler_that_hashes_takes_ports_in():
    printed = commands(preview(some_tables(Family.IPV4)[1], replace(PLAIN, scheduler="mh")))
    assert "ipvsadm -A -t 10.96.0.1:80 -s mh -b mh-port" in printed


def test_what_is_steered_is_in_a_table_of_its_own():
    printed = commands(preview(shop(Family.IPV4), PLAIN))
    link, rest = "dev kube-ipvs-kp", "proto 107 metric 27504"
    assert f"ip route add local 203.0.113.9 {link} table 27504 {rest}" in printed
    assert "ip rule add pref 107 fwmark 0x40000000/0x40000000 lookup 27504" in printed


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [(Timeouts(900, 0, 30), ["ipvsadm --set 900 0 30"]), (Timeouts(0, 0, 0), [])],
)
def test_timeouts_are_printed_if_they_are_chosen(wanted, printed):
    text = preview(some_tables(Family.IPV4)[0], replace(PLAIN, timeouts=wanted))
    assert [line for line in commands(text) if "ipvsadm" in line or "timeouts" in line] == printed


@FAMILIES
def test_whatever_is_named_was_made_before(family):
    text = preview(shop(family), PLAIN)
    made = set()
    for line in commands(text):
        match line.split():
            case ["ipset", "create", name, *_]:
                made.add(name)
            case ["ipset", "add", name, *_]:
                assert name in made
            case ["ip", "link", "add", name, *_]:
                made.add(name)
            case ["ipvsadm", "-A", *words]:
                made.add(" ".join(words).partition(" -s")[0])
            case ["ipvsadm", "-a", *words]:
                assert " ".join(words).partition(" -r")[0] in made
            case ["ip", *_, "dev", name, "table", _, "proto", _, "metric", _]:
                assert name in made
    named = re.findall(r"(?:match|map)-set (\S+)", text)
    assert named
    assert made.issuperset(named)
