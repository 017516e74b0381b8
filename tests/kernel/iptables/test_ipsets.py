"""Sets of clients against the kernel: many at once, and never more lost than must be."""

import subprocess

import pytest

from backends.iptables.render.rules import AffinitySet
from backends.kernel import ipset
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.iptables.applied import run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

NAME = "kproxy-4-web"


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch):
    monkeypatch.setattr(ipset, "RELEASE_TRIES", 2)


def affinity(timeout_s: int = 60, *, name: str = NAME, family: Family = Family.IPV4) -> AffinitySet:
    return AffinitySet(name, family, timeout_s)


def test_many_sets_are_made_found_and_removed():
    many = [affinity(n + 1, name=f"kproxy-4-{n}") for n in range(600)]
    ipset.ensure([*many, affinity(name="kproxy-6-x", family=Family.IPV6)])
    seen = ipset.observe("kproxy-", Family.IPV4)
    assert seen == {each.name: f"hash:ip:inet:{each.timeout_s}".encode() for each in many}
    assert ipset.observe("kproxy-", Family.IPV6) == {"kproxy-6-x": b"hash:ip:inet6:60"}
    assert ipset.destroy(each.name for each in many) == 600
    assert ipset.destroy(each.name for each in many) == 0
    assert ipset.names("kproxy-") == ["kproxy-6-x"]


def test_foreign_sets_are_seen_only_by_who_asks_for_their_names():
    run("ipset create KUBE-X hash:net")
    assert ipset.observe("kproxy-", Family.IPV4) == {}
    assert ipset.names("KUBE-") == ["KUBE-X"]


def test_a_set_that_exists_as_wanted_keeps_its_clients():
    ipset.ensure([affinity()])
    run(f"ipset add {NAME} 192.0.2.1")
    ipset.ensure([affinity()])
    assert "192.0.2.1" in run(f"ipset list {NAME}")


def test_a_set_of_another_shape_is_replaced_whatever_lies_in_the_way():
    ipset.ensure([affinity(), affinity(5, name="kproxy-4-spare")])
    ipset.ensure([affinity(120), affinity(name="kproxy-4-other")])
    assert ipset.observe("kproxy-", Family.IPV4) == {
        NAME: b"hash:ip:inet:120",
        "kproxy-4-other": b"hash:ip:inet:60",
    }


def test_a_full_set_forgets_a_client_for_a_new_one(monkeypatch):
    # So few that the set keeps its first size, 1,024 buckets: a larger one is full later.
    monkeypatch.setattr(ipset, "MAX_CLIENTS", 1000)
    ipset.ensure([affinity()])
    lines = [f"add {NAME} 10.0.{n >> 8}.{n & 255}\n" for n in range(1000)]
    run("ipset restore", "".join(lines))
    # The new one takes the place of one with which it shares a bucket; four of ten are empty.
    assert any(not subprocess.call(["ipset", "-q", "add", NAME, f"192.0.2.{n}"]) for n in range(40))


def test_a_set_of_another_type_under_our_name_is_an_error_that_leaves_no_spare():
    run(f"ipset create {NAME} bitmap:port range 1-9")
    refused = ipset.ensure([affinity(), affinity(name="kproxy-4-other")])
    assert refused == {NAME: "a set of another type has this name"}
    assert ipset.destroy(["kproxy-4-other"]) == 1
    assert ipset.names("") == [NAME]


def test_a_set_that_rules_use_stays_and_the_others_go():
    ipset.ensure([affinity(), affinity(name="kproxy-4-idle")])
    run(f"iptables-nft -A INPUT -m set --match-set {NAME} src")
    assert ipset.destroy([NAME, "kproxy-4-idle"]) == 1
    assert ipset.names("") == [NAME]


def test_ports_are_read_with_their_protocols():
    run("ipset create KUBE-NODE-PORT-TCP bitmap:port range 30000-32767")
    run("ipset add KUBE-NODE-PORT-TCP 30001")
    run("ipset create KUBE-NODE-PORT-SCTP-HASH hash:ip,port")
    run("ipset add KUBE-NODE-PORT-SCTP-HASH 192.0.2.1,sctp:30002")
    found = ipset.ports(["KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-SCTP-HASH"])
    assert found == [(6, 30001), (132, 30002)]


def test_a_set_that_does_not_exist_has_no_ports_to_read():
    with pytest.raises(BackendError, match="listing ports in ipsets"):
        ipset.ports(["KUBE-NODE-PORT-TCP"])


def test_a_kernel_without_ipsets_has_none(monkeypatch):
    """A subsystem of netfilter that no kernel has is asked in their place."""
    ipset.ensure([affinity()])
    monkeypatch.setattr(ipset, "_SPEAK", 99 << 8)
    assert ipset.observe("kproxy-", Family.IPV4) == {}
    assert ipset.names("") == []
