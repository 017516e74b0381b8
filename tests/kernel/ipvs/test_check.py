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

NO_ROUTE = "default route"


@pytest.fixture(autouse=True)
def namespace():
    """Run the test in a network namespace of its own."""
    made = Namespace("node")
    with made.entered():
        run("ip link set lo up")
        yield
    made.close()


@pytest.mark.parametrize(
    ("family", "variant"), [(Family.IPV4, Variant.LEGACY), (Family.IPV6, Variant.NF_TABLES)]
)
def test_this_kernel_has_everything_and_looking_changes_nothing(family, variant):
    found = check(family, replace(PLAIN, scheduler="wrr", variant=variant))
    assert [each.subject for each in found if not each.ok] == [NO_ROUTE]
    told = {each.subject for each in found}
    assert told >= {"ip_vs", "scheduler wrr", "scheduler mh", "dummy links", "table mangle"}
    assert told >= {"net.ipv4.vs.conntrack", f"{variant.value} ipvs", f"{variant.value} set"}
    parts.require(family, variant)
    assert run("nft list ruleset") == ""
    assert run("ipset list -n") == ""
    assert run("ip -o link show type dummy") == ""


def test_a_scheduler_that_the_kernel_lacks_is_told_with_those_that_it_has(hide):
    hide("libxt_ipvs.so", "libxt_bpf.so")
    options = replace(PLAIN, scheduler="nonesuch", variant=Variant.NF_TABLES)
    missed = {each.subject: each for each in check(Family.IPV4, options) if not each.ok}
    assert missed.keys() == {"scheduler nonesuch", "nft ipvs", "nft bpf", NO_ROUTE}
    told = missed["scheduler nonesuch"]
    assert told.blocking
    assert "available: rr, " in told.detail
    assert told.remedy == "choose another scheduler"
    assert missed["nft ipvs"].remedy == "load the kernel module: modprobe xt_ipvs"
    with pytest.raises(BackendError, match="ipvs"):
        parts.require(Family.IPV4, Variant.NF_TABLES)
