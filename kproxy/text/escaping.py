"""Values that strangers chose, as short and harmless text for a log or a terminal."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2
_LONGEST = 400  # kind, namespace and name of a valid object always fit


def shown(value: object) -> str:
    """Return a value as short text, "" for None."""
    return "" if value is None else _SHORT.repr(value)


def clipped(text: str) -> str:
    """Return `text`, of a very long one the beginning and the end."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 80]}…{text[-79:]}"


def printable(text: str) -> str:
    """Return `text` with everything escaped that could break a line or a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
