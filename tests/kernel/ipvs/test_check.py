"""What the host is told to lack, on a kernel with ipvs: each miss comes with its remedy."""

import contextlib
from dataclasses import replace

import pytest

from backends.ipvs.check import check
from backends.ipvs.path import IpvsPath
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run
from tests.support.ipvs.options import PLAIN

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]


def test_each_miss_is_told_with_what_helps_and_looking_changes_nothing():
    """Besides what is missing here, this kernel and its tools have everything."""
    variant = Variant.NF_TABLES
    found = check(Family.IPV6, replace(PLAIN, scheduler="nonesuch", variant=variant))
    missed = {each.subject: each for each in found if not each.ok}
    assert missed.keys() == {"scheduler nonesuch", "default route"}
    told = missed["scheduler nonesuch"]
    assert told.blocking
    assert "available: rr, " in told.detail
    assert told.remedy == "choose another scheduler"
    assert {each.subject for each in found} >= {
        *("ip_vs", "scheduler mh", "net.ipv4.vs.conntrack", "dummy links", "routing rules"),
        *("table mangle", "nft ipvs", "nft set", "nft connlabel", "nft bpf"),
    }
    assert run("nft list ruleset") == ""
    assert run("ipset list -n") == ""
    assert run("ip -o link show type dummy") == ""


@pytest.mark.parametrize("variant", Variant, ids=lambda variant: variant.value)
def test_where_calico_would_leave_pods_open_nothing_starts_and_what_runs_says_so(variant, caplog):
    family = Family.IPV6
    options = replace(PLAIN, variant=Variant.NF_TABLES)
    with contextlib.closing(IpvsPath(options).backend(family)) as running:
        running.observe()
        assert not caplog.records
        run(f"ip6tables-{variant.value} -N cali-OUTPUT")

        running.observe()
        running.observe()
        (said,) = caplog.messages
        assert "network policies would not hold" in said
        assert "choose mode iptables" in said
    with pytest.raises(BackendError, match="choose mode iptables"):
        IpvsPath(options).backend(family)
    (missed,) = [each for each in check(family, options) if each.subject == "network policies"]
    assert not missed.ok
    assert missed.blocking
