"""Programs are tried out once on each kernel, and again whenever anything about them differs."""

from __future__ import annotations

import os
import types

import pytest

from backends.ebpf.driver.tried import unless_tried
from backends.ebpf.unit import Unit
from backends.kernel.bpf.programs import Code, ProgramType
from kproxy.ports.data_path import BackendError


def unit(instructions=b"12345678"):
    code = Code("ingress", ProgramType.TC, 0, instructions, {})
    return Unit(name="tc", digest="d", compiler="bcc", maps={}, programs={"ingress": code})


class Trials:
    """Counts trials, which may fail."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    def start(self, units=None, refusal=None):
        """Return whether a start tried the programs out."""
        before = self.count

        def trial():
            self.count += 1
            if refusal:
                raise refusal

        unless_tried(self.folder, units or [unit()], trial)
        return self.count > before


@pytest.fixture
def trials(tmp_path):
    return Trials(tmp_path / "cache")


def test_a_later_start_of_the_same_programs_tries_nothing(trials):
    assert trials.start()
    assert not trials.start()


def test_other_programs_are_tried(trials):
    trials.start()
    assert trials.start(units=[unit(b"87654321")])
    assert trials.start(units=[unit(), unit(b"87654321")])


@pytest.mark.parametrize("what", ["release", "version", "machine"])
def test_another_kernel_has_to_be_seen_to_run_them(trials, monkeypatch, what):
    trials.start()
    names = {name: getattr(os.uname(), name) for name in ("release", "version", "machine")}
    other = types.SimpleNamespace(**{**names, what: "other"})
    monkeypatch.setattr(os, "uname", lambda: other)
    assert trials.start()


def test_a_trial_that_failed_is_done_again(trials):
    refusal = BackendError("trying", "it did wrong", transient=False)
    with pytest.raises(BackendError):
        trials.start(refusal=refusal)
    assert trials.start()


def test_where_nothing_can_be_kept_each_start_tries(trials, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert trials.start()
    assert trials.start()
