"""What ends a command early: lines for the person who gave it, and an exit code."""

from __future__ import annotations

import click

FAILED = 1
BAD_USAGE = 2


class Failed(click.ClickException):
    """It could not be done: exit code 1. May have several lines, each an error of its own."""

    exit_code = FAILED

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class BadUsage(Failed):
    """The command line or a file it names is wrong: exit code 2."""

    exit_code = BAD_USAGE
