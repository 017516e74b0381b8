"""The order of writing: at every step a packet finds the old answer or the new one."""

import pytest

from backends.iptables.render.restore import RestoreInput, split_edit, whole_edit
from backends.kernel.xtables import tools
from kproxy.core.image import Changes
from kproxy.core.table import TableChanges
from tests.kernel.iptables.conftest import changes, rules, service_port, shop

NEW, OLD, GONE = (f"filter/KPROXY-{name}" for name in ("NEW", "OLD", "GONE"))
JUMP, LOST_JUMP = "jump/filter/INPUT/KPROXY-NEW", "jump/filter/INPUT/KPROXY-GONE"
CHANGES = Changes({NEW: b"1", OLD: b"1", JUMP: b"1", "nat/KPROXY-N": b"1"}, {GONE, LOST_JUMP})


def written(edit) -> list[str]:
    return list(
        RestoreInput(
            edit,
            chain=lambda key: ("-j RETURN",),
            jump=lambda key: "-j KPROXY-NEW",
            old_jumps={JUMP: ("-p tcp -j KPROXY-NEW",), LOST_JUMP: ("-j KPROXY-GONE",)},
            numbers={JUMP: 3},
        )
    )


def test_one_step_writes_changes_and_removes_in_one_transaction():
    assert written(whole_edit("filter", CHANGES)) == [
        "*filter",
        ":KPROXY-OLD - [0:0]",
        ":KPROXY-NEW - [0:0]",
        ":KPROXY-GONE - [0:0]",
        "-D INPUT -p tcp -j KPROXY-NEW",
        "-D INPUT -j KPROXY-GONE",
        "-A KPROXY-NEW -j RETURN",
        "-A KPROXY-OLD -j RETURN",
        "-I INPUT 3 -j KPROXY-NEW",
        "-X KPROXY-GONE",
        "COMMIT",
    ]


def test_the_first_of_two_steps_flushes_nothing_that_existed():
    additions, exact = split_edit(whole_edit("filter", CHANGES), {OLD, GONE})
    assert written(additions) == [
        "*filter",
        ":KPROXY-NEW - [0:0]",
        "-D INPUT -p tcp -j KPROXY-NEW",
        "-A KPROXY-NEW -j RETURN",
        "-A KPROXY-OLD -j RETURN",
        "-I INPUT 3 -j KPROXY-NEW",
        "COMMIT",
    ]
    assert written(exact) == [
        "*filter",
        ":KPROXY-OLD - [0:0]",
        ":KPROXY-GONE - [0:0]",
        "-D INPUT -j KPROXY-GONE",
        "-A KPROXY-OLD -j RETURN",
        "-X KPROXY-GONE",
        "COMMIT",
    ]


@pytest.fixture
def steps(node, monkeypatch) -> list:
    """What the kernel held after each transaction: (table, filter rules, nat rules)."""
    seen = []

    def restore(family, variant, lines):
        genuine(family, variant, lines)
        table = next(iter(lines))
        filters = {line for line in node.iptables("-S").splitlines() if "KPROXY" in line}
        seen.append((table, filters, node.iptables("-t nat -S")))

    genuine = tools.restore
    monkeypatch.setattr(tools, "restore", restore)
    return seen


@pytest.mark.kernel
def test_a_refusal_stands_in_filter_before_nat_stops_forwarding_and_goes_after_it_forwards(
    node, steps
):
    node.apply(shop(node.family))
    first, last = service_port(node.family, 0), service_port(node.family, 2, endpoints=(7,))
    before = steps[-1][1]
    nat_before = steps[-1][2]
    steps.clear()
    node.apply(changes(node.family, first, last))
    assert [table for table, _, _ in steps] == ["*filter", "*nat", "*filter"]
    after = steps[-1][1]
    assert steps[0][1] >= before | after, "every old verdict and every new one"
    assert steps[0][2] == nat_before
    assert steps[1][1] >= before | after
    assert steps[1][2] == steps[2][2] != nat_before
    assert node.observed() == node.want


@pytest.mark.kernel
def test_a_change_of_one_table_is_one_transaction(node, steps):
    node.apply(shop(node.family))
    steps.clear()
    node.apply(changes(node.family, service_port(node.family, 0, endpoints=(2,))))
    assert [table for table, _, _ in steps] == ["*nat"]
    steps.clear()
    node.apply(TableChanges(node.family, rules=rules(node.family), cluster_ips={}))
    assert steps == []


def test_a_service_that_is_being_made_is_not_refused_before_it_is_served():
    refusing, leaf = "filter/KPROXY-CLUSTERIPS", "filter/KPROXY-FC-0a6"
    edit = whole_edit("filter", Changes({refusing: b"1", leaf: b"1", OLD: b"1"}, frozenset()))

    additions, exact = split_edit(edit, {refusing, OLD})
    assert (additions.write, additions.append) == ([], [OLD])
    assert sorted(exact.write) == [refusing, leaf, OLD]

    additions, _ = split_edit(edit, set())
    assert sorted(additions.write) == [refusing, leaf, OLD], "at first, others jump there at once"
