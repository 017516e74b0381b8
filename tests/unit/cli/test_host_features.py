"""What the host check reads from files, on hosts made of files."""

import pytest

from kproxy.core.addresses import Family
from kproxy.node.features import (
    HostFeatures,
    families,
    has_net_admin,
    ip_families,
    nftables,
)


@pytest.fixture
def host(tmp_path):
    """Make a host of these files: text by path."""

    def make(files=(), release="6.1.0-9-amd64", programs=()):
        for path, text in dict(files).items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return HostFeatures(tmp_path, release, lambda name: name if name in programs else None)

    return make


def missing(findings):
    assert all(finding.remedy for finding in findings if not finding.ok)
    return [finding.subject for finding in findings if not finding.ok]


ON = {"proc/net/if_inet6": "", "proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (ON, (Family.IPV4, Family.IPV6)),
        ({}, (Family.IPV4,)),
        ({**ON, "proc/sys/net/ipv6/conf/all/disable_ipv6": "1\n"}, (Family.IPV4,)),
        ({"proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n"}, (Family.IPV4,)),
    ],
)
def test_a_family_that_the_kernel_turned_off_is_not_served(host, tmp_path, files, expected):
    made = host(files)
    assert ip_families(tmp_path) == expected
    assert families(made).detail == " and ".join(family.value for family in expected)


def test_a_bare_host_lacks_everything_and_each_miss_has_a_remedy(host):
    bare = host(release="4.19.0")
    assert len(missing(nftables(bare))) == 3


@pytest.mark.parametrize(
    "files",
    [
        {"proc/kallsyms": "0000000000000000 T nft_do_chain\n"},
        {"proc/kallsyms": "0000000000000000 T nft_do_chain\t[nf_tables]\n"},
        {"lib/modules/6.1.0-9-amd64/modules.dep": "kernel/net/netfilter/nf_tables.ko.xz: a.ko\n"},
    ],
)
def test_a_feature_is_found_built_in_or_as_a_module(host, files):
    assert "kernel feature nf_tables" not in missing(nftables(host(files)))


def test_another_module_s_name_is_not_taken_for_it(host):
    files = {
        "proc/kallsyms": "0 T my_nft_do_chain\n0 T nft_do_chain_inet\n",
        "lib/modules/6.1.0-9-amd64/modules.dep": "net/nf_tables_set.ko: net/not_nf_tables.ko\n",
    }
    assert "kernel feature nf_tables" in missing(nftables(host(files)))


def test_nftables_needs_its_tool_and_a_newer_kernel(host):
    files = {"proc/kallsyms": "0 T nft_do_chain\n"}
    assert missing(nftables(host(files, programs=["nft"]))) == []
    assert missing(nftables(host(files, release="5.12.0", programs=["nft"]))) == ["kernel >= 5.13"]
    assert missing(nftables(host(files))) == ["program nft"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Name:\tx\nCapEff:\t000001ffffffffff\n", True),
        ("CapEff:\t0000000000001000\n", True),
        ("CapEff:\t0000000000000000\n", False),
        ("CapEff:\t000001ffffffefff\n", False),
        ("", False),
    ],
)
def test_the_privilege_is_read_from_the_process_status(status, expected):
    assert has_net_admin(status) is expected
