"""`python -m bench`: measure what kproxy and its peers forward, and look at what was measured."""

from __future__ import annotations

import click

from bench.compare import compare
from bench.report.command import report
from bench.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Measure what kproxy and its peers forward, and look at what was measured.

    A run writes one file of JSON lines, which holds every sample and says what it was measured on.
    """


main.add_command(run)
main.add_command(compare)
main.add_command(report)

if __name__ == "__main__":
    main(prog_name="python -m bench")
