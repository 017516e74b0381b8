"""What the host is told to lack, on a kernel with ipvs: each miss comes with its remedy."""

from dataclasses import replace

import pytest

from backends.ipvs.check import check
from backends.ipvs.driver import parts
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run
from tests.support.ipvs.options import PLAIN
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def namespace():
    """Run the test in a network namespace of its own."""
    made = Namespace("node")
    with made.entered():
        run("ip link set lo up")
        yield
    made.close()


def test_each_miss_is_told_with_what_helps_and_looking_changes_nothing(hide):
    """Besides what is missing here, this kernel and its tools have everything."""
    hide("libxt_ipvs.so", "libxt_bpf.so")
    family, variant = Family.IPV6, Variant.NF_TABLES
    found = check(family, replace(PLAIN, scheduler="nonesuch", variant=variant))
    missed = {each.subject: each for each in found if not each.ok}
    assert missed.keys() == {"scheduler nonesuch", "nft ipvs", "nft bpf", "default route"}
    told = missed["scheduler nonesuch"]
    assert told.blocking
    assert "available: rr, " in told.detail
    assert told.remedy == "choose another scheduler"
    assert missed["nft ipvs"].remedy == "load the kernel module: modprobe xt_ipvs"
    assert {each.subject for each in found if each.ok} >= {
        *("ip_vs", "scheduler mh", "net.ipv4.vs.conntrack", "dummy links"),
        *("table mangle", "nft set", "nft connlabel"),
    }
    with pytest.raises(BackendError, match="ipvs"):
        parts.require(family, variant)
    assert run("nft list ruleset") == ""
    assert run("ipset list -n") == ""
    assert run("ip -o link show type dummy") == ""
