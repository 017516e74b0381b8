"""The command `compare`: what got better or worse from one run to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import click

from bench import wording
from bench.comparison import FEWEST_ROUNDS, Change, Comparison
from bench.comparison import compare as compared
from bench.model import BadResults, Figure, Results, Run, read
from kproxy.text.escaping import printable

WORSE, CANNOT = 1, 2
_FILE = click.Path(path_type=Path, dir_okay=False)
_COLOURS = {"worse": "red", "better": "green"}


@click.command()
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@click.option(
    "--at-least",
    "threshold_percent",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="The smallest change that matters, in per cent.",
)
@click.option(
    "--false-alarms",
    "chance",
    default=0.001,
    show_default=True,
    type=click.FloatRange(min=1e-9, max=0.5),
    help="How often one figure or more may be told although nothing changed.",
)
@click.option("--all", "everything", is_flag=True, help="List all other figures, too.")
@click.pass_context
def compare(
    context: click.Context,
    *,
    before: Path,
    after: Path,
    threshold_percent: float,
    chance: float,
    everything: bool,
) -> None:
    """Say what got better or worse from the run BEFORE to the run AFTER, beyond the noise.

    Both are files that `python -m bench run` wrote, on one machine. A figure is told if it moved by
    what matters, and by more than its rounds can have moved by chance: the noise of a measure is
    taken from all its figures in both runs. Where plain routing was measured in the same rounds,
    figures are compared against it, so a machine that is slower as a whole today is not taken for
    a proxy that became slower.

    With few rounds only great changes can be told from noise: 11 rounds tell most changes of 10 %
    on a machine whose rounds differ by 3 %, 5 rounds those of 20 %. Figures of fewer than 3 rounds,
    as presets have of what takes long (--slow-repeats), are counted and not compared.

    \b
    The exit code is for CI:
      0  nothing got worse of what could be compared
      1  something got worse
      2  it cannot be said: another machine, a file that is none, figures that AFTER lacks,
         or nothing that could be compared

    \b
    For example:
      python -m bench compare main.jsonl branch.jsonl
      python -m bench compare --at-least 10 --all main.jsonl branch.jsonl
    """
    try:
        one, other = read(before), read(after)
    except BadResults as error:
        click.echo(f"error: {error}", err=True)
        context.exit(CANNOT)
    if one.run.machine != other.run.machine:
        click.echo(
            "error: measured on different machines: "
            + " and ".join(wording.machine(each.run.machine) for each in (one, other)),
            err=True,
        )
        context.exit(CANNOT)
    found = compared(one, other, threshold=threshold_percent / 100, chance=chance)
    for line in _told(before, after, (one, other), found, everything=everything):
        click.echo(line)
    context.exit(_exit_code(found))


def _exit_code(found: Comparison) -> int:
    if found.of("worse"):
        return WORSE
    nothing = len(found.of("unclear")) == len(found.changes)
    return CANNOT if found.missing or nothing else 0


def _told(
    before: Path, after: Path, runs: tuple[Results, Results], found: Comparison, *, everything: bool
) -> Iterator[str]:
    for title, path, results in zip(("before", "after"), (before, after), runs, strict=True):
        yield f"{title:8}{printable(str(path))}: {_heading(results)}"
    yield from _differences(runs[0].run, runs[1].run)
    for verdict in ("worse", "better", "unclear", "same"):
        changes = found.of(verdict)
        if changes and (verdict in _COLOURS or everything):
            yield ""
            yield click.style(
                _TITLES[verdict].format(len(changes)), _COLOURS.get(verdict), bold=True
            )
            yield from _table(changes)
    for title, figures in (("lacking", found.missing), ("new", found.new)):
        if figures:
            yield ""
            yield f"{title} in {printable(str(after))}: {len(figures)} figures"
            yield from _listed(figures)
    yield ""
    yield _summary(found)


_NOT_COMPARED = (
    f"not compared: fewer than {FEWEST_ROUNDS} rounds, or too few figures to know their noise"
)
_TITLES = {
    "worse": "worse: {}",
    "better": "better: {}",
    "unclear": f"{_NOT_COMPARED}: {{}}",
    "same": "within the noise, or too small to matter: {}",
}


def _heading(results: Results) -> str:
    run = results.run
    parts = [f"{run.started:%Y-%m-%d %H:%M}", f"commit {run.commit}{'+' if run.dirty else ''}"]
    parts += [f"preset {run.preset}", *([] if results.complete else ["interrupted"])]
    return printable(", ".join(parts))


def _differences(one: Run, other: Run) -> Iterator[str]:
    """Yield what was not the same in both runs, and may be why figures moved."""
    both = [
        {
            "kernel": run.kernel,
            **{f"{name}": version for name, version in run.versions.items()},
            **{f"parameter {name}": value for name, value in run.parameters.items()},
        }
        for run in (one, other)
    ]
    for name in dict.fromkeys((*both[0], *both[1])):
        old, new = (each.get(name, "absent") for each in both)
        if old != new:
            yield printable(f"        {name}: {old} before, {new} after")


def _table(changes: Sequence[Change]) -> Iterator[str]:
    for title, group in groupby(changes, key=lambda each: wording.measure(each.figure)):
        yield printable(f"  {title}")
        rows = [
            (
                each.figure.who,
                wording.circumstances(each.figure.where),
                f"{wording.number(each.before.median)} -> {wording.number(each.after.median)}",
                wording.relative(each.change),
                f"against {each.against}" if each.against else "",
            )
            for each in group
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield printable(f"    {'  '.join(cells)}".rstrip())


def _listed(figures: Sequence[Figure]) -> Iterator[str]:
    for title, group in groupby(figures, key=wording.measure):
        names = [f"{each.who} ({wording.circumstances(each.where)})" for each in group]
        yield printable(f"  {title}: {', '.join(names)}")


def _summary(found: Comparison) -> str:
    if not found.changes:
        return "the two runs have no figure in common"
    worse, better, unclear = (len(found.of(each)) for each in ("worse", "better", "unclear"))
    compared = f"{len(found.changes) - unclear} figures compared: {worse} worse, {better} better"
    return f"{compared}; {unclear} {_NOT_COMPARED}" if unclear else compared
