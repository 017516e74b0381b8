"""What the author of a YAML text most likely did wrong, where the parser only says what it met."""

from __future__ import annotations

import re
from functools import cached_property

_LONGEST_QUOTE = 60
_TEMPLATE = re.compile(r"\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$)")
_UNQUOTED_TEMPLATE = re.compile(r"(?:.*?[:,\[{-]\s+)??(\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$))")
_NO_START = "found character that cannot start any token"
_HINTS = {
    "mapping values are not allowed in this context": (
        "keys of one mapping begin in the same column, a colon needs a blank behind it, and text "
        "with a colon and a blank in it must be in quotes"
    ),
    "did not find expected key": "does it begin in the same column as the lines above it?",
    "did not find expected '-' indicator": "does it begin in the same column as the lines above?",
    "could not find expected ':'": "a key without a colon?",
    "found unexpected end of stream": "a quote that nothing closes?",
}
_TWICE = "is the line `---` between two objects missing?"


class Hints:
    """Explains the errors of one text."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def _lines(self) -> list[bytes]:
        return self._data.splitlines()

    def likely_cause(self, line: int, column: int, why: str) -> tuple[int, str]:
        """Return the line to look at and the reason in words that help.

        `line` and `column`, from 1, are where the parser gave up, and `why` is what it says. A
        template that was not rendered is the cause of all that comes after it in its document.
        """
        lines = self._lines
        here = _decoded(lines[line - 1]) if line <= len(lines) else ""
        template = _template(lines, line)
        if template is not None:
            at, text = template
            return at, f"is a template that was not rendered ({text}); render it first"
        indentation = len(here) - len(here.lstrip(" \t"))
        if "\t" in here[:indentation] or here[column - 1 : column] == "\t":
            return line, "holds a tab where YAML takes blanks alone; indent with blanks"
        if why.endswith(_NO_START) and here[column - 1 : column]:
            return line, f"text that begins with {here[column - 1]} must be in quotes"
        hint = next((hint for said, hint in _HINTS.items() if why.endswith(said)), None)
        return line, f"{why}: {hint}" if hint else why


def repeated_key(key: str) -> str:
    """Return what it means that a mapping has a key twice."""
    shown = repr(key) if len(key) <= _LONGEST_QUOTE else repr(key[:_LONGEST_QUOTE]) + "…"
    hint = f"; {_TWICE}" if key in ("apiVersion", "kind") else ""
    return f"key {shown} is there twice{hint}"


def _template(lines: list[bytes], line: int) -> tuple[int, str] | None:
    """Return the first template up to a line, in that line's document.

    In the line itself anything counts that looks like one; before it only what stands bare, as a
    text in quotes may well hold templates of somebody else.
    """
    at_fault = None
    for at in range(min(line, len(lines)), 0, -1):
        text = _decoded(lines[at - 1])
        if at < line and text.startswith("---"):
            break
        if text.lstrip().startswith("#"):
            continue
        found = _TEMPLATE.search(text) if at == line else None
        bare = _UNQUOTED_TEMPLATE.match(text)
        if found is not None:
            at_fault = at, _quoted(found[0])
        elif bare is not None:
            at_fault = at, _quoted(bare[1])
    return at_fault


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def _decoded(line: bytes) -> str:
    return line.decode(errors="replace")
