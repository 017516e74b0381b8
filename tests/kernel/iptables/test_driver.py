"""The driver against the kernel, in what the contract of all data paths does not say."""

import socket
import subprocess

import pytest

from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.image import Changes
from kproxy.ports.data_path import BackendError
from tests.support.contract import tend
from tests.support.iptables.applied import (
    Applied,
    changes,
    rules,
    run,
    service_port,
    shop,
)

pytestmark = pytest.mark.kernel


def test_an_empty_kernel_is_an_empty_image(node):
    assert node.observed() == {}


def test_observing_creates_no_legacy_table(namespace, family):
    Applied(family, Variant.LEGACY).observed()
    name = "ip_tables_names" if family is Family.IPV4 else "ip6_tables_names"
    assert run(f"cat /proc/self/net/{name}") == ""


def test_dropping_everything_leaves_nothing_of_ours(node):
    node.apply(shop(node.family))
    node.want = {}
    node.apply()
    assert [key.partition("/")[0] for key in node.observed()] == ["sysctl"], "it forwards still"
    assert "KPROXY" not in node.saved()
    tend(node.backend)
    assert "kproxy" not in run("ipset list -n")


def test_a_set_that_other_rules_name_is_no_reason_to_refuse_and_goes_after_them(node):
    node.apply(shop(node.family))
    names = sorted(split_key(key)[1] for key in node.want if key.startswith("set/"))
    node.iptables(f"-t nat -I PREROUTING -m set --match-set {names[0]} src -j ACCEPT")
    node.apply(changes(node.family, service_port(node.family, 1, endpoints=(5, 6))))
    tend(node.backend)
    assert run("ipset list -n").split() == names[:1]
    assert node.observed() == node.want
    assert not node.apply(), "it is no object of ours while others name it"

    node.iptables("-t nat -D PREROUTING 1")
    assert node.observed() == node.want
    tend(node.backend)
    assert run("ipset list -n") == ""


def test_a_set_that_is_wanted_again_before_it_went_stays(node):
    node.apply(shop(node.family))
    with_affinity = service_port(node.family, 1, endpoints=(5, 6), affinity_timeout_s=10800)
    node.apply(changes(node.family, service_port(node.family, 1, endpoints=(5, 6))))
    node.apply(changes(node.family, with_affinity))
    tend(node.backend)
    assert node.observed() == node.want
    assert len(run("ipset list -n").split()) == sum(key.startswith("set/") for key in node.want)


def test_sets_that_a_crash_left_are_removed_after_the_next_look(node):
    node.apply(shop(node.family))
    again = Applied(node.family, node.variant)
    port = service_port(node.family, 0, endpoints=(2,))
    again.apply(changes(node.family, port, rules=rules(node.family)))
    tend(again.backend)
    assert run("ipset list -n") == ""


def test_affinity_with_another_timeout_keeps_its_rules(node):
    node.apply(shop(node.family))
    other = service_port(node.family, 1, endpoints=(5, 6), affinity_timeout_s=60)
    node.apply(changes(node.family, other))
    assert node.observed() == node.want
    assert {value.rpartition(b":")[2] for value in node.observed().values()} >= {b"60"}
    assert len(run("ipset list -n").split()) == sum(key.startswith("set/") for key in node.want)


def test_a_set_of_the_same_name_and_another_timeout_is_replaced_while_rules_use_it(node):
    node.apply(shop(node.family))
    name = next(key for key in node.want if key.startswith("set/")).partition("/")[2]
    inet = "inet" if node.family is Family.IPV4 else "inet6"
    run(f"ipset create other hash:ip family {inet} timeout 5")
    run(f"ipset swap other {name}")
    written = node.apply()
    assert list(written.put) == [f"set/{name}"]
    assert node.observed() == node.want


@pytest.mark.parametrize(
    ("why", "edit"),
    [
        ("another rule in a chain", "-t nat -A KPROXY-SERVICES -j RETURN"),
        ("a rule taken from a chain", "-t nat -D KPROXY-SERVICES 1"),
        ("a chain flushed", "-t nat -F KPROXY-SERVICES"),
        ("a foreign chain under our name", "-t filter -N KPROXY-NOBODYS"),
        ("our jump twice", "-t nat -A PREROUTING -j KPROXY-SERVICES"),
        ("our jump gone", "-t nat -D PREROUTING 1"),
        ("a whole table flushed", "-t nat -F"),
        ("the other table flushed", "-t filter -F"),
    ],
)
def test_an_edit_by_others_is_noticed_and_repaired(node, why, edit):
    node.apply(shop(node.family))
    node.observed()
    assert not node.backend.disturbed()
    node.iptables(edit)
    assert node.backend.disturbed(), why
    assert node.apply()
    assert node.observed() == node.want
    assert not node.backend.disturbed()
    assert not node.apply()


def test_a_firewall_reload_is_noticed_and_repaired_around_its_rules(node):
    node.apply(shop(node.family))
    node.observed()
    for table in ("filter", "nat"):
        node.restore(f"*{table}\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n", options="")
    assert node.backend.disturbed()
    node.apply()
    assert node.observed() == node.want
    assert node.saved().count("-A OUTPUT -p tcp -j ACCEPT") == 2


def test_a_chain_deleted_with_all_that_leads_to_it_is_made_again(node):
    node.apply(shop(node.family))
    node.observed()
    node.iptables("-t nat -D POSTROUTING 1")
    node.iptables("-t nat -F KPROXY-POSTROUTING")
    node.iptables("-t nat -X KPROXY-POSTROUTING")
    assert node.backend.disturbed()
    node.apply()
    assert node.observed() == node.want


def test_a_rewritten_rule_that_keeps_the_count_is_found_by_reading(node):
    node.apply(shop(node.family))
    node.observed()
    kept = node.iptables("-t nat -S KPROXY-SERVICES 2")
    node.iptables("-t nat -R KPROXY-SERVICES 2 -p tcp -j RETURN")
    assert node.observed()["nat/KPROXY-SERVICES"] == b"altered"
    assert node.observed()["nat/KPROXY-SERVICES"] == b"altered", "until it is repaired"
    node.apply()
    assert node.observed() == node.want
    assert node.iptables("-t nat -S KPROXY-SERVICES 2") == kept


def test_a_jump_that_others_narrowed_is_replaced(node):
    node.apply(shop(node.family))
    node.observed()
    jump = node.iptables("-t nat -S PREROUTING 1").split(maxsplit=2)[2]
    node.restore(f"*nat\n-R PREROUTING 1 -p udp {jump}COMMIT\n")
    node.apply()
    assert node.observed() == node.want
    assert "-p udp" not in node.iptables("-t nat -S PREROUTING")


def test_others_rules_and_their_place_before_ours_are_left_alone(node):
    node.iptables("-t nat -A PREROUTING -p tcp -j ACCEPT")
    node.apply(shop(node.family))
    node.iptables("-t nat -I PREROUTING -p udp -j ACCEPT")
    assert not node.apply()


def test_what_others_do_elsewhere_in_nf_tables_does_not_disturb(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    node.observed()
    node.iptables("-A INPUT -p tcp -j ACCEPT")
    run("nft add table inet other")
    assert not node.backend.disturbed()


def test_an_edit_between_the_last_look_and_our_commit_is_not_forgotten(node):
    node.apply(shop(node.family))
    have = node.observed()
    node.iptables("-t nat -F KPROXY-POSTROUTING")
    node.render(changes(node.family, service_port(node.family, 0, endpoints=(2,))))
    put = {key: value for key, value in node.want.items() if have.get(key) != value}
    node.backend.commit(Changes(put, frozenset(have.keys() - node.want.keys())))
    assert node.backend.disturbed()


def add_native_rule(family: Family) -> None:
    """Add a rule to nat's PREROUTING that iptables-nft-save cannot express."""
    name = "ip" if family is Family.IPV4 else "ip6"
    run(f"nft add rule {name} nat PREROUTING fib daddr type local accept")


def test_a_native_rule_that_iptables_cannot_show_hides_none_of_ours(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    add_native_rule(family)
    assert "PREROUTING" not in node.saved(), "it hides them from iptables-nft-save"
    assert node.observed() == node.want
    node.iptables("-t nat -F KPROXY-SERVICES")
    node.iptables("-t nat -D POSTROUTING 1")
    node.apply(changes(family, service_port(family, 0, endpoints=(2,))))
    assert node.observed() == node.want


def test_a_jump_that_somebody_repeated_beside_native_rules_is_put_right(namespace, family):
    node = Applied(family, Variant.NF_TABLES)
    node.apply(shop(family))
    node.iptables("-t nat -A PREROUTING -j KPROXY-SERVICES")
    add_native_rule(family)
    again = Applied(family, Variant.NF_TABLES)
    again.apply(shop(family))
    assert again.observed() == again.want
    assert not again.backend.disturbed(), "its own transactions are known to it"
    again.want = {}
    again.apply()
    name = "ip" if family is Family.IPV4 else "ip6"
    assert "KPROXY" not in run(f"nft list table {name} nat")
    assert "fib daddr type local accept" in run(f"nft list table {name} nat")


def test_counters_that_grow_or_are_set_to_zero_alter_nothing(node):
    node.apply(shop(node.family))
    before = node.observed()
    v4 = node.family is Family.IPV4
    with socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.sendto(b"counted", ("127.0.0.1" if v4 else "::1", 9))
    assert "[1:" in node.saved()
    assert node.observed() == before
    node.iptables("-t nat -Z")
    assert node.observed() == before


def test_our_own_rules_saved_and_loaded_again_by_others_alter_nothing(node):
    node.apply(shop(node.family))
    before = node.observed()
    node.restore(node.saved() + "\n", options="-c")
    assert node.observed() == before


def test_an_empty_chain_under_our_name_is_removed_and_a_jump_to_it_from_elsewhere_is_too(node):
    node.apply(shop(node.family))
    node.iptables("-t nat -N KPROXY-NOBODYS")
    node.iptables("-t nat -A INPUT -p tcp -g KPROXY-NOBODYS")
    assert node.observed().keys() - node.want.keys() == {
        "nat/KPROXY-NOBODYS",
        "jump/nat/INPUT/KPROXY-NOBODYS",
    }
    node.apply()
    assert node.observed() == node.want
    assert "NOBODYS" not in node.saved()


def test_a_refused_restore_names_the_line_and_its_neighbours(node):
    node.apply(shop(node.family))
    before = set(node.want)
    node.render(changes(node.family, service_port(node.family, 5, endpoints=(2,))))
    key = next(key for key in node.want if key.startswith("nat/") and key not in before)
    renderer = node.renderer
    genuine = renderer.chain
    renderer.chain = lambda asked: ("-p tcp --no-such-option",) if asked == key else genuine(asked)
    with pytest.raises(BackendError) as refused:
        node.apply()
    assert not refused.value.transient
    assert "--no-such-option" in refused.value.detail
    assert "*" in refused.value.detail
    assert "line" in refused.value.detail
    assert node.backend.disturbed()

    renderer.chain = genuine
    node.apply()
    assert node.observed() == node.want


def test_a_lock_that_somebody_holds_is_a_passing_trouble(namespace, family, monkeypatch, tmp_path):
    monkeypatch.setattr("backends.kernel.xtables.tools.LOCK_WAIT_S", 1)
    node = Applied(family, Variant.LEGACY)
    lock = tmp_path / "xtables.lock"
    holder = subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo held; exec sleep 60"], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BackendError) as refused:
            node.apply(shop(family))
        holder.kill()
    assert refused.value.transient
    assert node.backend.disturbed()


def test_a_program_that_is_missing_is_named_with_its_package(node, monkeypatch, tmp_path):
    monkeypatch.setattr("backends.kernel.xtables.tools.SYSTEM_PATH", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="Debian package iptables") as refused:
        node.apply(shop(node.family))
    assert not refused.value.transient
