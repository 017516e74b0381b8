"""A kernel without policy routing is told from one with it, by asking it."""

import pytest

from backends.kernel import routing_rules
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

pytestmark = pytest.mark.kernel

MPLS = 28  # AF_MPLS: whose packets no kernel routes by rules


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_this_kernel_has_rules_for_both_families(family):
    assert routing_rules.are_possible(family)
    routing_rules.require(family)


def test_a_family_without_rules_is_refused_with_what_helps(monkeypatch):
    monkeypatch.setitem(routing_rules.AF, Family.IPV6, MPLS)
    assert not routing_rules.are_possible(Family.IPV6)
    with pytest.raises(BackendError, match="IPv6 routing rules: the kernel has none; boot") as told:
        routing_rules.require(Family.IPV6)
    assert not told.value.transient
