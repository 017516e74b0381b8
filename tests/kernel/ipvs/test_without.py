"""On a kernel without ipvs: told at once, in one line that says what helps."""

import pytest

from backends.ipvs.check import check
from backends.ipvs.driver import parts, schedulers
from backends.kernel.virtual_servers import VirtualServers
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy import ipvs_leftovers
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.ipvs.options import PLAIN
from tests.support.ipvs.without import ON_A_KERNEL_WITHOUT_IPVS

pytestmark = [pytest.mark.kernel, ON_A_KERNEL_WITHOUT_IPVS]


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_one_line_says_what_is_missing_and_what_helps(family):
    (told,) = check(family, PLAIN)
    assert (told.subject, told.ok, told.blocking) == ("ip_vs", False, True)
    assert told.detail == "the kernel has no ip_vs"
    assert told.remedy == "load the kernel module: modprobe ip_vs"


def test_a_start_is_refused_with_the_same_words():
    words = "the kernel has no ip_vs; load the kernel module: modprobe ip_vs"
    with pytest.raises(BackendError, match=words) as refused:
        schedulers.require("rr")
    assert not refused.value.transient
    with pytest.raises(BackendError, match=words):
        VirtualServers("reading virtual servers")


@pytest.mark.parametrize("variant", Variant, ids=lambda variant: variant.value)
def test_rules_lack_the_match_of_ipvs(variant):
    with pytest.raises(BackendError, match=r"lacks the match ipvs; .*modprobe xt_ipvs"):
        parts.require(Family.IPV4, variant)


def test_there_is_nothing_of_kube_proxys_to_remove():
    assert ipvs_leftovers.remove_virtual_servers(Family.IPV4) == 0
