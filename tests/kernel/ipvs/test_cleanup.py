"""Clean-up removes all that is ours, however far a start came, and nothing else."""

from __future__ import annotations

import pytest

from backends.ipvs.driver.link import LINK, TABLE
from backends.ipvs.path import IpvsPath
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.kernel.iptables.test_contract import IptablesRig
from tests.kernel.ipvs.test_contract import IpvsRig
from tests.support.contract import Follower, assert_holds
from tests.support.iptables.applied import run, saved
from tests.support.ipvs.options import PLAIN
from tests.support.ipvs.shop import shop
from tests.support.tables import some_tables

pytestmark = pytest.mark.kernel


@pytest.fixture(params=Variant, ids=lambda variant: variant.value)
def variant(request):
    return request.param


@pytest.fixture(params=Family, ids=lambda family: family.value)
def rig(request, namespace, variant):
    rig = IpvsRig(IptablesRig(request.param, variant), variant)
    yield rig
    rig.close()


def clean_up(family):
    """Clean up as a process does that knows of no other."""
    return IpvsPath(PLAIN).clean_up(family)


def left(rig):
    """Return what is ours, of the family of a rig."""
    rules = [line for each in Variant for line in saved(rig.family, each).splitlines()]
    sets = run("ipset list -n").splitlines()
    routing = [
        line
        for shown in ("link", "rule", "route show table all")
        for line in rig.ip(shown).splitlines()
        if LINK in line or f" {TABLE}" in line
    ]
    named = [line for line in (*rules, *sets) if "KPROXY-" in line or "kproxy-" in line]
    return [*named, *routing, *rig.served()]


def test_all_of_it_goes_and_nothing_else(rig):
    before = rig.foreign()
    Follower(rig.backend()).apply(shop(rig.family))
    assert len(left(rig)) > 80
    assert clean_up(rig.family) > 40
    assert left(rig) == []
    assert rig.foreign() == before
    assert clean_up(rig.family) == 0


def test_what_is_left_half_written_goes_too(rig):
    tables = some_tables(rig.family)
    before = rig.foreign()
    for number, refusal in enumerate(rig.refusals()):
        Follower(rig.backend()).apply(tables[1])
        with refusal as backend, pytest.raises(BackendError):
            Follower(backend).apply(tables[5])
        clean_up(rig.family)
        assert left(rig) == [], f"refusal {number}"
        assert rig.foreign() == before, f"refusal {number}"


def test_the_other_family_stays(rig):
    (other,) = set(Family) - {rig.family}
    stays = some_tables(other)[5]
    Follower(rig.both()[other]).apply(stays)
    Follower(rig.backend()).apply(shop(rig.family))
    clean_up(rig.family)
    assert_holds(rig, stays)
