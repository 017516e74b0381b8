"""The command `compare`: what it prints, and the exit code that CI goes by."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.parameters import PRESETS
from tests.support.bench import Slower, write_run


@pytest.fixture
def compared():
    def run(*arguments):
        return CliRunner().invoke(main, ["compare", *map(str, arguments)])

    return run


@pytest.fixture
def before(tmp_path):
    return write_run(tmp_path / "before.jsonl", seed=1, rounds=15)


def test_nothing_worse_is_exit_code_0(compared, before, tmp_path):
    done = compared(before, write_run(tmp_path / "after.jsonl", seed=2, rounds=15))

    assert done.exit_code == 0
    assert "189 figures compared: 0 worse, 0 better" in done.output


def test_something_worse_is_exit_code_1_and_a_row_with_both_medians(compared, before, tmp_path):
    slower = Slower("kproxy ebpf", "packets", 0.8, {"path": "NodePort, remote endpoint"})
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15, slower=slower, commit="def456")
    done = compared(before, after)

    assert done.exit_code == 1
    head, _, rows = done.output.partition("worse: 1\n")
    assert "commit abc123" in head
    assert "commit def456" in head
    assert "parameter seed: 1 before, 2 after" in head
    title, row, *_ = rows.splitlines()
    assert title == "  forwarding: packets, 1/s"
    assert row.startswith("    kproxy ebpf  10 endpoints · NodePort, remote endpoint · UDP")
    assert row.endswith("%  against plain routing")
    assert " -> " in row


def test_a_smaller_change_than_matters_is_exit_code_0(compared, before, tmp_path):
    slower = Slower("kproxy ebpf", "packets", 0.8)
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15, slower=slower)

    assert compared("--at-least", 40, before, after).exit_code == 0


def test_better_is_no_reason_to_fail(compared, before, tmp_path):
    slower = Slower("kproxy ebpf", "packets", 0.8)
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15, slower=slower)
    done = compared(after, before)

    assert done.exit_code == 0
    assert "better: 3\n" in done.output


def test_all_figures_are_listed_on_request(compared, before, tmp_path):
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15)

    assert "  control plane: first sync, s\n" in compared("--all", before, after).output
    assert "first sync" not in compared(before, after).output


def rewritten(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


def test_another_machine_is_exit_code_2(compared, before, tmp_path):
    after = rewritten(write_run(tmp_path / "after.jsonl", seed=2), '"cores":2', '"cores":64')
    done = compared(before, after)

    assert done.exit_code == 2
    assert "different machines" in done.output
    assert "64 cores" in done.output


def test_a_file_that_is_none_is_exit_code_2(compared, before, tmp_path):
    done = compared(before, tmp_path / "nowhere.jsonl")

    assert done.exit_code == 2
    assert "nowhere.jsonl: No such file" in done.output


def test_figures_that_are_gone_are_exit_code_2(compared, before, tmp_path):
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15)
    lines = after.read_text().splitlines(keepends=True)
    after.write_text("".join(line for line in lines if '"lost"' not in line))
    done = compared(before, after)

    assert done.exit_code == 2
    assert "lacking in" in done.output
    assert "disruption: lost, connections: kproxy" in done.output


def test_nothing_but_too_few_rounds_is_exit_code_2(compared, tmp_path):
    before, after = (write_run(tmp_path / f"{seed}.jsonl", seed=seed, rounds=2) for seed in (1, 2))
    done = compared(before, after)

    assert done.exit_code == 2
    assert "0 figures compared: 0 worse, 0 better; 189 not compared: fewer than 3" in done.output


def of_a_preset(name, folder, seed, slower=None):
    """Write a run that has as many rounds as a preset."""
    preset = PRESETS[name]
    return write_run(
        folder / f"{seed}.jsonl",
        seed=seed,
        rounds=preset.repeats,
        slow_rounds=preset.slow_repeats,
        slower=slower,
    )


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("quick", "84 figures compared: 0 worse, 0 better; 105 not compared"),
        ("full", "189 figures compared: 0 worse, 0 better\n"),
    ],
)
def test_equal_runs_of_a_preset_are_exit_code_0(compared, tmp_path, name, summary):
    done = compared(*(of_a_preset(name, tmp_path, seed) for seed in (1, 2)))

    assert done.exit_code == 0
    assert summary in done.output


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_measures_in_rounds_can_get_worse(compared, tmp_path, name):
    slower = Slower("kproxy ebpf", "packets", 0.5)
    done = compared(of_a_preset(name, tmp_path, 1), of_a_preset(name, tmp_path, 2, slower))

    assert done.exit_code == 1
    assert "worse: 3\n" in done.output


def test_what_was_not_compared_is_listed_on_request(compared, tmp_path):
    before, after = (of_a_preset("quick", tmp_path, seed) for seed in (1, 2))

    assert "their noise: 105\n" in compared("--all", before, after).output
    assert "first sync" not in compared(before, after).output


def test_an_interrupted_run_is_told_as_such(compared, before, tmp_path):
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15)
    lines = after.read_text().splitlines(keepends=True)
    after.write_text("".join(lines[:-1]))

    assert ", interrupted\n" in compared(before, after).output


def test_strangers_text_cannot_reach_the_terminal(compared, before, tmp_path):
    slower = Slower("kproxy ebpf", "packets", 0.7)
    after = write_run(tmp_path / "after.jsonl", seed=2, rounds=15, slower=slower)
    for path in (before, after):
        rewritten(path, '"kproxy ebpf"', '"kproxy \\u001b[31m ebpf"')
    done = compared(before, after)

    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert r"kproxy \x1b[31m ebpf" in done.output


def test_help_teaches_the_exit_codes(compared):
    done = compared("--help")

    assert done.exit_code == 0
    for code in ("0  nothing got worse", "1  something got worse", "2  it cannot be said"):
        assert code in done.output
