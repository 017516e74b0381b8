"""How a child process that misbehaves is reported."""

import pytest

from backends.kernel.xtables import tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

LINES = ["*nat", ":KPROXY-A - [0:0]", "-A KPROXY-A -j ACCEPT", "-A KPROXY-A -j RETURN", "COMMIT"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that puts a script in the place of both programs of a variant."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(variant: Variant, script: str) -> None:
        for verb in ("restore", "save"):
            path = tmp_path / tools.program(Family.IPV4, variant, verb)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    return put


def refusal(variant: Variant) -> BackendError:
    with pytest.raises(BackendError) as refused:
        tools.restore(Family.IPV4, variant, LINES)
    return refused.value


def test_a_child_that_was_killed_is_named_by_its_signal(fake):
    fake(Variant.NF_TABLES, "kill -KILL $$")
    refused = refusal(Variant.NF_TABLES)
    assert "SIGKILL" in refused.detail
    assert refused.transient
    with pytest.raises(BackendError, match="SIGKILL"):
        list(tools.save(Family.IPV4, Variant.NF_TABLES, "nat"))


def test_a_child_that_does_not_answer_is_killed(fake, monkeypatch):
    monkeypatch.setattr(tools, "TIMEOUT_S", 0.2)
    fake(Variant.NF_TABLES, "exec sleep 60")
    refused = refusal(Variant.NF_TABLES)
    assert "no answer" in refused.detail
    assert refused.transient
    with pytest.raises(BackendError, match="SIGKILL"):
        list(tools.save(Family.IPV4, Variant.NF_TABLES, "nat"))


def test_a_reading_that_fails_at_its_end_is_not_taken_for_complete(fake):
    fake(Variant.NF_TABLES, "echo '*nat'; echo COMMIT; echo broken >&2; exit 3")
    with pytest.raises(BackendError, match="exit code 3: broken"):
        list(tools.save(Family.IPV4, Variant.NF_TABLES, "nat"))


def test_a_reader_that_stops_early_leaves_no_child(fake):
    fake(Variant.NF_TABLES, "while :; do echo x; done")
    lines = tools.save(Family.IPV4, Variant.NF_TABLES, "nat")
    next(lines)
    lines.close()


@pytest.mark.parametrize(
    ("why", "variant", "script", "transient"),
    [
        ("lock", Variant.LEGACY, "exit 4", True),
        (
            "the whole table: perhaps replaced meanwhile by one without the lock",
            Variant.LEGACY,
            "echo 'iptables-restore: line 5 failed' >&2; exit 1",
            True,
        ),
        ("a line", Variant.LEGACY, "echo 'iptables-restore: line 3 failed' >&2; exit 1", False),
        (
            "too deep",
            Variant.NF_TABLES,
            "echo 'line 3: RULE_APPEND failed (Too many links): rule in chain A' >&2; exit 4",
            False,
        ),
        (
            "no memory",
            Variant.NF_TABLES,
            "echo 'line 3: RULE_APPEND failed (Cannot allocate memory): rule' >&2; exit 4",
            True,
        ),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(fake, why, variant, script, transient):
    fake(variant, script)
    assert refusal(variant).transient is transient, why


def test_the_refused_line_is_shown_with_two_before_and_two_after(fake):
    fake(Variant.LEGACY, "echo 'iptables-restore: line 3 failed' >&2; exit 1")
    shown = "1: *nat; 2: :KPROXY-A - [0:0]; 3*: -A KPROXY-A -j ACCEPT; 4: -A KPROXY-A -j RETURN"
    assert f"{shown}; 5: COMMIT" in refusal(Variant.LEGACY).detail


def test_children_get_no_more_of_the_environment_than_they_need(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("XTABLES_LOCKFILE", "/there")
    fake(Variant.NF_TABLES, "exec env")
    printed = list(tools.save(Family.IPV4, Variant.NF_TABLES))
    assert b"XTABLES_LOCKFILE=/there\n" in printed
    assert b"LC_ALL=C\n" in printed
    assert not any(b"SECRET" in line or b"LANG=" in line for line in printed)
