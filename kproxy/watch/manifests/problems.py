"""What is wrong with a manifest, as one line that names file, line, object and field."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from kproxy.text.escaping import clipped, printable


class Severity(enum.Enum):
    """Whether something was refused, or is used but will not do what its author expects."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `path` is relative to the folder ("." is the folder itself). `line` and `column` count from 1
    and are None where no position is to blame. `object` is like "Service default/web"; it,
    `field` and `value` are "" where they say nothing.
    """

    severity: Severity
    path: str
    line: int | None
    column: int | None
    object: str
    field: str
    why: str
    value: str

    def text(self) -> str:
        """Return the problem as one line."""
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        parts = [clipped(part) for part in (where, self.object, self.field, self.why) if part]
        value = f" (value {self.value})" if self.value else ""
        return printable(": ".join(parts) + value)


def is_error(problems: Iterable[Problem]) -> bool:
    """Say whether anything was refused."""
    return any(problem.severity is Severity.ERROR for problem in problems)
