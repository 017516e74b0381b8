"""What is wrong with a manifest, as one line that names file, line, object and field."""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2


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
        parts = [part for part in (where, self.object, self.field, self.why) if part]
        value = f" (value {self.value})" if self.value else ""
        return printable(": ".join(parts) + value)


def is_error(problems: Iterable[Problem]) -> bool:
    """Say whether anything was refused."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def shown(value: object) -> str:
    """Return a value as short text, "" for None."""
    return "" if value is None else _SHORT.repr(value)


def printable(text: str) -> str:
    """Return `text` with everything escaped that could break a line or a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
