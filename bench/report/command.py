"""The command `report`: a run as a page."""

from __future__ import annotations

from pathlib import Path

import click

from bench.model import BadResults, read


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; by default it stands beside FILE, as .html.",
)
def report(*, file: Path, to: Path | None) -> None:
    """Show the run in FILE as a page of plots and tables.

    The page is one file that needs no network and no script: send it, print it, or keep it. It
    follows the light or dark mode of whoever reads it. What was measured of an interrupted run is
    shown as well, and said to be part of one.

    \b
    For example:
      python -m bench report build/run.jsonl
      python -m bench report build/run.jsonl --to report.html
    """
    # Drawing takes a second to import, which no other command has to pay.
    from bench.report.page import page

    try:
        results = read(file)
    except BadResults as error:
        raise click.ClickException(str(error)) from error
    target = to or file.with_suffix(".html")
    target.write_text(page(results), encoding="utf-8")
    click.echo(target)
