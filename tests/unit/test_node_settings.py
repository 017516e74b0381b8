"""What is set on a node besides rules, on a made-up tree of files."""

from __future__ import annotations

import os

import pytest

from kproxy.config.fields import Conntrack
from kproxy.node.settings import conntrack_settings, online_cpus, oom_score_setting, put_in_force

MAX = "proc/sys/net/netfilter/nf_conntrack_max"
HASH_SIZE = "sys/module/nf_conntrack/parameters/hashsize"


def files(root, **held):
    for name, text in held.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def root(tmp_path):
    """Return a tree with what an untouched kernel has."""
    sysctls = tmp_path / "proc/sys/net/netfilter"
    sysctls.mkdir(parents=True)
    for name, value in {
        "nf_conntrack_max": 262144,
        "nf_conntrack_tcp_timeout_established": 432000,
        "nf_conntrack_tcp_timeout_close_wait": 60,
        "nf_conntrack_tcp_be_liberal": 0,
        "nf_conntrack_udp_timeout": 30,
        "nf_conntrack_udp_timeout_stream": 120,
    }.items():
        (sysctls / name).write_text(f"{value}\n")
    (tmp_path / HASH_SIZE).parent.mkdir(parents=True)
    (tmp_path / HASH_SIZE).write_text("65536\n")
    return tmp_path


def wanted(cpus=4, **conntrack):
    return {s.name: s.value for s in conntrack_settings(Conntrack(**conntrack), cpus)}


@pytest.mark.parametrize(
    ("why", "cpus", "conntrack", "expected"),
    [
        ("the least wins on few cores", 2, {}, 131072),
        ("the cores win", 8, {}, 262144),
        ("the product is capped", 64, {}, 1048576),
        ("the product at the cap is not", 32, {}, 1048576),
        ("a least above the cap counts while the product is below", 8, {"min": 2**21}, 2**21),
        ("and not when the product is above", 64, {"min": 2**21}, 1048576),
        ("no least", 1, {"min": 0}, 32768),
    ],
)
def test_how_many_connections_are_tracked(why, cpus, conntrack, expected):
    assert wanted(cpus, **conntrack)["nf_conntrack_max"] == expected, why


def test_zero_per_core_leaves_the_table_alone():
    assert wanted(max_per_core=0, min=5).keys() == {
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_close_wait",
    }


def test_the_defaults_are_upstreams():
    assert wanted() == {
        "nf_conntrack_max": 131072,
        "hashsize": 32768,
        "nf_conntrack_tcp_timeout_established": 86400,
        "nf_conntrack_tcp_timeout_close_wait": 3600,
    }


def test_everything_can_be_set_and_fractions_of_a_second_go():
    chosen = wanted(tcp_be_liberal=True, udp_timeout_s=10.9, udp_stream_timeout_s=77.0)
    assert chosen["nf_conntrack_tcp_be_liberal"] == 1
    assert chosen["nf_conntrack_udp_timeout"] == 10
    assert chosen["nf_conntrack_udp_timeout_stream"] == 77


def test_only_what_differs_is_written(root):
    settings = conntrack_settings(Conntrack(tcp_close_wait_timeout_s=60.0), 4)
    written, problems = put_in_force(settings, root)
    assert [s.name for s in written] == ["nf_conntrack_max", "nf_conntrack_tcp_timeout_established"]
    assert problems == {}
    assert (root / MAX).read_text() == "131072", "it is lowered too"
    assert (root / HASH_SIZE).read_text() == "65536\n", "a larger hash table stays"
    assert put_in_force(settings, root) == ([], {})


def test_the_hash_table_grows_with_the_connections(root):
    put_in_force(conntrack_settings(Conntrack(), 32), root)
    assert (root / HASH_SIZE).read_text() == "262144"


def test_what_cannot_be_set_is_named_and_the_rest_is_set(root):
    (root / MAX).unlink()
    (root / MAX).mkdir()
    (root / HASH_SIZE).write_text("many")
    written, problems = put_in_force(conntrack_settings(Conntrack(), 4), root)
    assert [s.name for s in written] == [
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_close_wait",
    ]
    assert list(problems.values()) == [
        "nf_conntrack_max cannot be set to 131072: Is a directory",
        "hashsize cannot be set to 32768: it holds no number",
    ]


def test_the_place_in_line_is_this_process_own(tmp_path):
    files(tmp_path, proc__self__oom_score_adj="0\n")
    written, problems = put_in_force([oom_score_setting(-999)], tmp_path)
    assert (tmp_path / "proc/self/oom_score_adj").read_text() == "-999"
    assert [s.name for s in written] == ["oom_score_adj"]
    assert problems == {}


@pytest.mark.parametrize(
    ("online", "expected"), [("0", 1), ("0-3", 4), ("0-3,8,10-11\n", 7), ("1", 1)]
)
def test_cpus_are_counted_by_the_node_not_by_what_we_may_use(tmp_path, online, expected):
    files(tmp_path, sys__devices__system__cpu__online=online)
    assert online_cpus(tmp_path) == expected


@pytest.mark.parametrize("online", ["", "none"])
def test_without_that_list_our_own_cpus_count(tmp_path, online):
    files(tmp_path, sys__devices__system__cpu__online=online)
    assert online_cpus(tmp_path) == os.cpu_count()
