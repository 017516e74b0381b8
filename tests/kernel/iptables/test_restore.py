"""The order of writing: at every step a packet finds the old answer or the new one."""

import pytest

from backends.iptables.driver.edits import split_edit, split_fill
from backends.kernel.xtables import tools
from backends.kernel.xtables.restore import RestoreInput, TableEdit, whole_edit
from backends.kernel.xtables.tools import Variant
from kproxy.core.image import Changes
from kproxy.core.table import TableChanges
from tests.support.iptables.applied import changes, rules, service_port, shop

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


def of_a_service(number: int, rules: int, *kinds: str) -> dict[str, bytes]:
    return {f"nat/KPROXY-{kind}-{number}": b"0123abcd:%d" % rules for kind in kinds}


def whose(key: str) -> str | None:
    return key.rpartition("-")[2] if key.count("-") > 1 else None


def test_many_new_rules_are_written_in_steps_of_which_the_last_one_shows():
    services: dict[str, bytes] = {}
    for number in range(7):
        services |= of_a_service(number, 1250, "SVC", "SEP")
    front = {"nat/KPROXY-SERVICES": b"0123abcd:7", "jump/nat/OUTPUT/KPROXY-SERVICES": b"1"}
    put = {**front, **services, "nat/KPROXY-MARK": b"0123abcd:1"}
    gone = "nat/KPROXY-SVC-99"
    known = {"nat/KPROXY-SVC-3"}
    edit = whole_edit("nat", Changes(put, frozenset({gone})))

    *early, last = split_fill(edit, put, known, whose)

    assert [[key.rpartition("KPROXY-")[2] for key in step.write] for step in early] == [
        ["MARK", "SVC-0", "SEP-0", "SVC-1", "SEP-1"],
        ["SVC-2", "SEP-2", "SEP-3", "SVC-4", "SEP-4"],
        ["SVC-5", "SEP-5", "SVC-6", "SEP-6"],
    ]
    for step in early:
        assert step == TableEdit("nat", write=step.write)
    assert last.write == ["nat/KPROXY-SERVICES", "nat/KPROXY-SVC-3"], "a chain in use is one of it"
    assert (last.remove, last.insert_jumps) == ([gone], ["jump/nat/OUTPUT/KPROXY-SERVICES"])


def test_a_few_new_rules_are_written_in_one_step():
    put = {"nat/KPROXY-SERVICES": b"0123abcd:7", **of_a_service(1, 1250, "SVC", "SEP")}
    edit = whole_edit("nat", Changes(put, frozenset()))
    assert list(split_fill(edit, put, set(), whose)) == [edit]


def reachable(printed: str) -> set[str]:
    """Return the rules that a packet can meet, of what `iptables -S` prints."""
    rules: dict[str, list[str]] = {}
    waiting = []
    for line in printed.splitlines():
        option, chain, *_ = line.split()
        rules.setdefault(chain, [])
        if option == "-P":
            waiting.append(chain)
        elif option == "-A":
            rules[chain].append(line)
    seen: set[str] = set()
    while waiting:
        chain = waiting.pop()
        if chain not in seen:
            seen.add(chain)
            waiting += [rule.split()[-1] for rule in rules[chain] if rule.split()[-1] in rules]
    return {rule for chain in seen for rule in rules[chain]}


@pytest.mark.kernel
def test_packets_meet_nothing_of_a_large_change_before_all_of_it(node, steps):
    node.apply(shop(node.family))
    before = reachable(steps[-1][2])
    steps.clear()

    many = [service_port(node.family, n, endpoints=range(n, n + 14)) for n in range(800)]
    node.apply(changes(node.family, *many))

    nat = [rules for table, _, rules in steps if table == "*nat"]
    assert len(nat) == (1 if node.variant is Variant.LEGACY else 3)
    for rules_then in nat[:-1]:
        assert len(rules_then.splitlines()) > 5000
        assert reachable(rules_then) == before
    assert reachable(nat[-1]) == {line for line in nat[-1].splitlines() if line[:2] == "-A"}
    assert not node.backend.disturbed(), "all transactions were our own"
    assert node.observed() == node.want
